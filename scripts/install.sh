#!/usr/bin/env bash
# Installs the project and all it needs into .venv. A second call finds it done and returns at once.
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
install_all
say "[install] ready: $VENV/bin/convsearch --help"
