#!/usr/bin/env bash
# Runs the tests, all parts or those named, and prints how long each took:
#   scripts/test.sh [unit|service|recipes|architecture|lint|e2e]...
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
PARTS=(lint architecture unit service recipes e2e)
export HF_HUB_OFFLINE=1 # tests download nothing

run_part() {
  case $1 in
  lint)
    "$VENV/bin/ruff" check . && "$VENV/bin/ruff" format --check . && "$VENV/bin/pyright" --pythonpath "$VENV/bin/python"
    ;;
  *)
    "$VENV/bin/python" -m pytest "tests/$1" --durations=5
    ;;
  esac
}

chosen=("$@")
[[ ${#chosen[@]} -gt 0 ]] || chosen=("${PARTS[@]}")
for part in "${chosen[@]}"; do
  [[ " ${PARTS[*]} " == *" $part "* ]] || die "unknown part '$part'; choose from: ${PARTS[*]}"
done

install_all
cd "$ROOT"
failed=()
lines=()
for part in "${chosen[@]}"; do
  say "== $part"
  start=$SECONDS
  result=passed
  run_part "$part" || {
    result=FAILED
    failed+=("$part")
  }
  lines+=("$(printf '%-14s %-7s %4d s' "$part" "$result" $((SECONDS - start)))")
done
say ""
say "== parts"
for line in "${lines[@]}"; do
  say "$line"
done
say "$(printf '%-14s %-7s %4d s' all "" "$SECONDS")"
[[ ${#failed[@]} -eq 0 ]] || {
  say "failed: ${failed[*]}"
  exit 1
}
