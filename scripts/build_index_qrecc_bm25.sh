#!/usr/bin/env bash
# BM25 over the 54,573,064 passages of QReCC, with the k1 and b of ConvSearch-R1 (arXiv 2505.15776).
export CORPUS=${CORPUS:-data/qrecc/corpus.jsonl}
export INDEX=${INDEX:-indexes/qrecc_bm25}
export K1=${K1:-0.82} B=${B:-0.68}
exec bash "$(dirname "$0")/_build_index.sh" bm25 "$@"
