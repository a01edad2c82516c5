#!/usr/bin/env bash
# The released checkpoints, their self-distilled data and two ANCE encoders, into data/models, each at
# the revision of data/models/hub.lock.json. Names or options of "convsearch hub download" may follow.
source "$(dirname "${BASH_SOURCE[0]}")/_commands.sh"
CONVSEARCH=$(program convsearch)
[[ ${1:--} != -* ]] || set -- released sft ance ance-paper "$@"
launch "$CONVSEARCH" hub download "$@"
