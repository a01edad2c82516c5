#!/usr/bin/env bash
# The BM25 index of wiki-18; nobody has published gold passages for it.
export INDEX=${INDEX:-indexes/wiki18_bm25}
exec bash "$(dirname "$0")/_serve.sh" "$@"
