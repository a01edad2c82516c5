#!/usr/bin/env bash
# Runs the tests, all parts or those named, and prints how long each took:
#   scripts/test.sh [unit|service|recipes|scale|architecture|lint|e2e]...
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
PARTS=(lint architecture unit service recipes scale e2e)
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
install_lucene
cd "$ROOT"
LOGS=$(mktemp -d)
failed=()
lines=()

# Runs a part and leaves its result and seconds in $LOGS.
timed() {
  local start=$SECONDS result=passed
  run_part "$1" || result=FAILED
  printf '%s %d\n' "$result" $((SECONDS - start)) >"$LOGS/$1.result"
}

# e2e mostly waits for processes to start, so it runs beside the other parts.
beside=
if [[ " ${chosen[*]} " == *" e2e "* && ${#chosen[@]} -gt 1 ]]; then
  say "== e2e runs beside the other parts; what it prints comes last"
  set -m # in a process group of its own, which hears of Ctrl-C through the trap
  timed e2e >"$LOGS/e2e.log" 2>&1 &
  beside=$!
  set +m
fi
stop() {
  if [[ -n $beside ]]; then
    kill -INT -- "-$beside" 2>/dev/null && wait "$beside"
  fi
  rm -rf "$LOGS"
}
trap stop EXIT
trap 'exit 130' INT TERM

for part in "${chosen[@]}"; do
  say "== $part"
  if [[ $part == e2e && -n $beside ]]; then
    wait "$beside"
    beside=
    cat "$LOGS/e2e.log"
  else
    timed "$part"
  fi
  read -r result seconds <"$LOGS/$part.result"
  [[ $result == passed ]] || failed+=("$part")
  lines+=("$(printf '%-14s %-7s %4d s' "$part" "$result" "$seconds")")
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
