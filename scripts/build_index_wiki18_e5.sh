#!/usr/bin/env bash
# E5 over the 21,015,324 passages of wiki-18, as Search-R1 and ExpandSearch search it. The index keeps
# both prefixes, so that no query is encoded without. ENCODER is the folder of intfloat/e5-base-v2.
export CORPUS=${CORPUS:-data/wiki18/corpus.jsonl}
export INDEX=${INDEX:-indexes/wiki18_e5}
export ENCODER=${ENCODER:-data/models/e5-base-v2}
exec bash "$(dirname "$0")/_build_index.sh" e5 --query-prefix "query: " --passage-prefix "passage: " "$@"
