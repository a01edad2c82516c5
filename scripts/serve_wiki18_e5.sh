#!/usr/bin/env bash
# The E5 index of wiki-18; the prefix of queries is in its manifest.
export INDEX=${INDEX:-indexes/wiki18_e5}
export ENCODER=${ENCODER:-data/models/e5-base-v2}
exec bash "$(dirname "$0")/_serve.sh" "$@"
