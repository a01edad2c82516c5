#!/usr/bin/env bash
# BM25 over the 21,015,324 passages of wiki-18, with the k1 and b that Pyserini uses by default.
export CORPUS=${CORPUS:-data/wiki18/corpus.jsonl}
export INDEX=${INDEX:-indexes/wiki18_bm25}
export K1=${K1:-0.9} B=${B:-0.4}
exec bash "$(dirname "$0")/_build_index.sh" bm25 "$@"
