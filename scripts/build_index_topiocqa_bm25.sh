#!/usr/bin/env bash
# BM25 over the 25,700,592 passages of TopiOCQA, with the k1 and b of ConvSearch-R1 (arXiv 2505.15776).
export CORPUS=${CORPUS:-data/topiocqa/corpus.jsonl}
export INDEX=${INDEX:-indexes/topiocqa_bm25}
export K1=${K1:-0.9} B=${B:-0.4}
exec bash "$(dirname "$0")/_build_index.sh" bm25 "$@"
