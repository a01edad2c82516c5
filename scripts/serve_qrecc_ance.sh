#!/usr/bin/env bash
# The ANCE index of QReCC; of a query the first 64 tokens count.
export INDEX=${INDEX:-indexes/qrecc_ance}
export QRELS=${QRELS:-data/qrecc/qrels.trec}
export ENCODER=${ENCODER:-data/models/ance}
exec bash "$(dirname "$0")/_serve.sh" "$@"
