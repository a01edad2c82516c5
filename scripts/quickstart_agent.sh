#!/usr/bin/env bash
# Installs into .venv where need be, then teaches, trains and compares search agents on the embedded
# questions: three queries a call and one, before and after GRPO.
#   RUN       folder of the run (runs/quickstart_agent); what is finished in it is not done again
#   TEACHING  optimiser steps of the teaching (1200)
#   STEPS     steps of GRPO (20)
#   SEED      of teaching and training (0)
#   SPLIT     questions of the comparison (test)
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
install_all
cd "$ROOT"
RUN=${RUN:-runs/quickstart_agent} SEED=${SEED:-0} SPLIT=${SPLIT:-test} STEPS=${STEPS:-20}
PATH=$VENV/bin:$PATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)} OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1
SEARCH=(--topk 1 --max-result-tokens 96 --squeezer extractive)
mkdir -p "$RUN"

stage() { say "[$((SECONDS / 60)) min] $*"; }

# Serves the index until the script ends; sets RETRIEVER_URL.
serve() {
  local port
  port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  convsearch serve --index "$RUN/index" --qrels "$RUN/hops/qrels.trec" --port "$port" >"$RUN/server.log" 2>&1 &
  SERVER=$!
  trap 'kill "$SERVER" 2>/dev/null || true' EXIT
  export RETRIEVER_URL=http://127.0.0.1:$port
  for _ in $(seq 120); do
    python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2)' "$RETRIEVER_URL/readyz" 2>/dev/null && return
    kill -0 "$SERVER" 2>/dev/null || die "the retrieval server ended; see $RUN/server.log"
    sleep 1
  done
  die "the retrieval server is not ready after two minutes; see $RUN/server.log"
}

# The folder of the last weights that a training saved.
trained() {
  printf '%s/global_step_%s/actor/huggingface' "$1" "$(cat "$1/latest_checkpointed_iteration.txt")"
}

# Trains the taught policy with $1 queries a call. Ray gives its daemons 30 s to start, a constant in
# its source; on a busy machine they take longer, and the start is tried again.
train() {
  local out=$RUN/grpo_n$1 try
  [[ ! -f $out/done ]] || return 0
  stage "GRPO, $1 queries a call (log: $out.log)"
  for try in 1 2 3; do
    if MODEL=$RUN/taught TRAIN_FILE=$RUN/hops/train.parquet OUT=$out VARIANTS=$1 TOPK=1 SEED=$SEED \
      BATCH=${BATCH:-8} ROLLOUTS=${ROLLOUTS:-8} LR=${LR:-3e-4} SAVE_FREQ=5 KEEP=1 EPOCHS=99 \
      bash verl/examples/expand_search/nano_cpu.sh trainer.total_training_steps="$STEPS" >"$out.log" 2>&1; then
      touch "$out/done"
      return 0
    fi
    grep -q "node timed out during startup" "$out.log" || break
  done
  die "the training ended with an error; its last lines are in $out.log"
}

# Answers the questions with the policy in $2 and $3 queries a call; $1 names the episodes.
answer() {
  stage "answering: $1"
  convsearch agent infer --dataset "$RUN/hops" --split "$SPLIT" --index "$RUN/index" --format nano \
    --model "$2" --variants "$3" --max-turns 3 --max-tokens 96 "${SEARCH[@]}" --out "$RUN/$1.jsonl"
}

[[ -d $RUN/hops ]] || convsearch data hops --out "$RUN/hops"
[[ -f $RUN/hops/train.parquet ]] || convsearch data agent-prompts --dataset "$RUN/hops" --out "$RUN/hops/train.parquet"
[[ -d $RUN/index ]] || convsearch index --corpus "$RUN/hops/corpus.jsonl" --out "$RUN/index"
if [[ ! -d $RUN/taught ]]; then
  stage "teaching a small policy in other worlds"
  convsearch nano teach-agent --out "$RUN/taught" --steps "${TEACHING:-1200}" --seed "$SEED"
fi
serve
train 3
train 1
for n in 3 1; do
  answer "n${n}_taught" "$RUN/taught" "$n"
  answer "n${n}_grpo" "$(trained "$RUN/grpo_n$n")" "$n"
done
runs=("$RUN"/n3_grpo.jsonl "$RUN"/n1_grpo.jsonl "$RUN"/n3_taught.jsonl "$RUN"/n1_taught.jsonl)
convsearch agent eval "${runs[@]}" --dataset "$RUN/hops" --split "$SPLIT" --out "$RUN/scores" | tee "$RUN/scores.txt"
for pair in "n3_grpo n1_grpo" "n3_taught n1_taught" "n3_grpo n3_taught" "n1_grpo n1_taught"; do
  read -r one other <<<"$pair"
  convsearch agent paired "$RUN/$one.jsonl" "$RUN/$other.jsonl" --dataset "$RUN/hops" --split "$SPLIT"
done | tee "$RUN/paired.txt"
convsearch agent curves n3="$RUN/grpo_n3" n1="$RUN/grpo_n1" --out "$RUN/curves"
stage "done; tables in $RUN/scores.txt and $RUN/paired.txt, charts in $RUN/scores and $RUN/curves"
