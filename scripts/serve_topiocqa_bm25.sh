#!/usr/bin/env bash
# The BM25 index of TopiOCQA; k1 and b are those it was built with.
export INDEX=${INDEX:-indexes/topiocqa_bm25}
export QRELS=${QRELS:-data/topiocqa/qrels.trec}
exec bash "$(dirname "$0")/_serve.sh" "$@"
