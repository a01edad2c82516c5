#!/usr/bin/env bash
# The ANCE index of TopiOCQA; of a query the first 64 tokens count.
export INDEX=${INDEX:-indexes/topiocqa_ance}
export QRELS=${QRELS:-data/topiocqa/qrels.trec}
export ENCODER=${ENCODER:-data/models/ance}
exec bash "$(dirname "$0")/_serve.sh" "$@"
