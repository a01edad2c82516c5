#!/usr/bin/env bash
# Runs the tests, all parts or those named, and prints how long each took:
#   scripts/test.sh [unit|service|recipes|scale|architecture|lint|e2e]...
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
PARTS=(architecture unit service lint recipes scale e2e)
unset PYTHONDONTWRITEBYTECODE # else each of some hundred processes compiles our modules anew
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

# Two lanes take parts until none is left, so that both end together: this one from the front, what
# is told soonest first, and one in the background from the back, the longest first.
claim() {
  mkdir "$LOGS/$1.taken" 2>/dev/null # which only one of the two can
}
beside=
if [[ ${#chosen[@]} -gt 1 ]]; then
  say "== two parts at a time; what those in the background print comes last"
  set -m # in a process group of its own, which hears of Ctrl-C through the trap
  {
    trap 'exit 130' INT TERM # pytest ends by itself after Ctrl-C, and no further part is taken
    for ((at = ${#PARTS[@]} - 1; at >= 0; at--)); do
      part=${PARTS[at]}
      if [[ " ${chosen[*]} " == *" $part "* ]] && claim "$part"; then
        timed "$part" >"$LOGS/$part.log" 2>&1
      fi
    done
  } &
  beside=$!
  set +m
fi
stop() {
  if [[ -n $beside ]]; then
    kill -INT -- "-$beside" 2>/dev/null && wait "$beside" || true
  fi
  rm -rf "$LOGS"
}
trap stop EXIT
trap 'exit 130' INT TERM

for part in "${PARTS[@]}"; do
  if [[ " ${chosen[*]} " == *" $part "* ]] && claim "$part"; then
    say "== $part"
    timed "$part"
  fi
done
[[ -z $beside ]] || wait "$beside" || true # whatever became of its parts is in their results
for part in "${chosen[@]}"; do
  if [[ -f $LOGS/$part.log ]]; then
    say "== $part"
    cat "$LOGS/$part.log"
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
