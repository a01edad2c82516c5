#!/usr/bin/env bash
# Installs into .venv where need be and runs the whole main job on the embedded data.
# Options go to `convsearch quickstart`; see --help.
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
install_all
cd "$ROOT"
exec "$VENV/bin/convsearch" quickstart "$@"
