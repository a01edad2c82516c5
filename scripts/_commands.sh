# Sourced by the scripts beside it: where the project's commands are, and DRY_RUN=1, which prints a
# command, a word a line, instead of running it.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# The path of a program: of .venv beside the checkout, else of the environment that is active.
program() {
  if [[ -x $ROOT/.venv/bin/$1 ]]; then
    printf '%s' "$ROOT/.venv/bin/$1"
  else
    command -v "$1" || die "$1 is not installed; run scripts/install.sh, or activate its environment"
  fi
}

launch() {
  if [[ -n ${DRY_RUN:-} ]]; then
    printf '%s\n' "$@"
  else
    exec "$@"
  fi
}
