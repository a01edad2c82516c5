#!/usr/bin/env bash
# Search agents with verl's own trainer. The named scripts beside it hold the values and end in this
# one; words after a script's name are further overrides and win.
#   RETRIEVER_URL  address of the retrieval server (convsearch serve)
#   MODEL TRAIN_FILE OUT  what the script starts from, trains on (convsearch data agent-prompts), writes
#   VAL_FILE       held-out questions: validates every TEST_FREQ steps (default 100) and keeps the model
#                  of each saved step under OUT/models
#   VARIANTS TOPK DOCUMENTS RESULT_TOKENS SQUEEZER  the agent's searches; FORMAT its calls
#   SQUEEZER_MODEL SQUEEZER_URL SQUEEZER_CACHE  with SQUEEZER=llm; the key is OPENAI_API_KEY
#   GPUS NNODES    GPUs of a node (8) and nodes (1); micro-batches and offloading follow
#   LOGGER         further loggers of verl by name, such as wandb
#   DRY_RUN=1      prints the command, a word a line, and does not run it
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
PYTHON=${PYTHON:-python3}
source "$ROOT/verl/examples/_gpus.sh"
source "$ROOT/verl/examples/_ppo.sh"
[[ ${LORA:-0} == 0 ]] || die "LORA=1: search agents train the whole model here; leave it out"
[[ -n ${DRY_RUN:-} ]] || : "${RETRIEVER_URL:?start a server with \"convsearch serve\" and set RETRIEVER_URL to its address}"

SAVE=[model,optimizer,extra,hf_model] KEEP=${KEEP:-2} SAVE_FREQ=${SAVE_FREQ:-100} VLLM_SHARE=0.6
OFFLOAD=False TEMPERATURE=1.0
[[ ${DEVICE:-cuda} == cpu ]] || ((WORKERS > 2)) || OFFLOAD=True
[[ -n ${VAL_FILE:-} ]] && TEST_FREQ=${TEST_FREQ:-100} || TEST_FREQ=-1
MINI_BATCH=${MINI_BATCH:-$BATCH} ROLLOUTS=${ROLLOUTS:-1}
MICRO_BATCH=$(micro_batch $((MINI_BATCH * ROLLOUTS)) "$MICRO_BATCH")
own=(
  algorithm.gamma=1.0 algorithm.lam=1.0 data.truncation=error
  reward_model.reward_manager=search_agent
  actor_rollout_ref.rollout.agent.default_agent_loop=search_agent
  search_agent.strategy="$STRATEGY" search_agent.num_variants="$VARIANTS"
  search_agent.tool_format="$FORMAT" search_agent.topk="$TOPK"
  search_agent.max_documents="$DOCUMENTS" search_agent.max_result_tokens="$RESULT_TOKENS"
  search_agent.squeezer="$SQUEEZER" search_agent.max_turns="${TURNS:-4}"
  "search_agent.llm.model='${SQUEEZER_MODEL:-}'" "search_agent.llm.url='${SQUEEZER_URL:-}'"
  "search_agent.llm.cache='${SQUEEZER_CACHE:-}'"
)
compose
launch "$@"
