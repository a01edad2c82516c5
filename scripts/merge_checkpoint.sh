#!/usr/bin/env bash
# A checkpoint of a training (shards of verl, or a LoRA adapter) -> a model folder, tried out:
#   scripts/merge_checkpoint.sh --checkpoint runs/x/grpo --out runs/x/model
source "$(dirname "${BASH_SOURCE[0]}")/_commands.sh"
CONVSEARCH=$(program convsearch)
launch "$CONVSEARCH" merge "$@"
