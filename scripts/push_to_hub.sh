#!/usr/bin/env bash
# Publishes a model with a card written from its own passports; the token is in HF_TOKEN:
#   scripts/push_to_hub.sh --model runs/x/model --repo OWNER/NAME --evaluation runs/x/eval --dry-run
source "$(dirname "${BASH_SOURCE[0]}")/_commands.sh"
CONVSEARCH=$(program convsearch)
launch "$CONVSEARCH" hub push "$@"
