#!/usr/bin/env bash
# ANCE over the 54,573,064 passages of QReCC, the first 384 tokens of each. The encoder is the one the
# authors recommend; that of their tables is ENCODER=data/models/ance-paper.
export CORPUS=${CORPUS:-data/qrecc/corpus.jsonl}
export INDEX=${INDEX:-indexes/qrecc_ance}
export ENCODER=${ENCODER:-data/models/ance}
exec bash "$(dirname "$0")/_build_index.sh" ance "$@"
