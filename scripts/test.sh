#!/usr/bin/env bash
# Runs the tests, all parts or those named, and prints how long each took:
#   scripts/test.sh [unit|service|recipes|scale|architecture|lint|e2e]...
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
PARTS=(lint architecture unit service recipes scale e2e)
export HF_HUB_OFFLINE=1 # tests download nothing
export OMP_NUM_THREADS=1 # two lanes share the processors

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

# e2e mostly waits for processes to start, so it runs beside the other parts, and scale after it.
second_lane=()
for part in e2e scale; do
  [[ " ${chosen[*]} " != *" $part "* ]] || second_lane+=("$part")
done
beside=
if [[ ${#second_lane[@]} -gt 0 && ${#second_lane[@]} -lt ${#chosen[@]} ]]; then
  say "== beside the other parts: ${second_lane[*]}; what they print comes last"
  set -m # in a process group of its own, which hears of Ctrl-C through the trap
  for part in "${second_lane[@]}"; do
    timed "$part" >"$LOGS/$part.log" 2>&1
  done &
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
  if [[ -n $beside && " ${second_lane[*]} " == *" $part "* ]]; then
    wait "$beside" || true # whatever became of it is in its results
    cat "$LOGS/$part.log"
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
