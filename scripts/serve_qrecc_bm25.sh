#!/usr/bin/env bash
# The BM25 index of QReCC; k1 and b are those it was built with.
export INDEX=${INDEX:-indexes/qrecc_bm25}
export QRELS=${QRELS:-data/qrecc/qrels.trec}
exec bash "$(dirname "$0")/_serve.sh" "$@"
