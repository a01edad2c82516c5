#!/usr/bin/env bash
# GRPO by rank with verl's own trainer. The named scripts beside it hold the values and end in this
# one; words after a script's name are further overrides and win.
#   RETRIEVER_URL  address of the retrieval server (convsearch serve)
#   MODEL TRAIN_FILE OUT  what the script starts from, trains on, and where it writes
#   VAL_FILE       prompts of other conversations: validates every TEST_FREQ steps (default 50), keeps
#                  the model of each saved step under OUT/models; TEST_FREQ=-1 is the original's way
#   GPUS NNODES    GPUs of a node (8) and nodes (1); micro-batches and offloading follow
#   LORA=1         an adapter instead of the whole model, for one GPU of 24 to 48 GB
#   ROLLOUTS       responses to a prompt (8; the original's TopiOCQA scripts have 16)
#   LOGGER         further loggers of verl by name, such as wandb
#   DRY_RUN=1      prints the command, a word a line, and does not run it
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
PYTHON=${PYTHON:-python3}
[[ ${LORA:-0} == 0 && ${DEVICE:-cuda} != cpu ]] || GPUS=${GPUS:-1}
source "$ROOT/verl/examples/_gpus.sh"
source "$ROOT/verl/examples/_ppo.sh"
[[ -n ${DRY_RUN:-} ]] || : "${RETRIEVER_URL:?start a server with \"convsearch serve\" and set RETRIEVER_URL to its address}"

ESTIMATOR=grpo MINI_BATCH=$BATCH SAVE=[model,optimizer,extra,hf_model] OFFLOAD=False VLLM_SHARE=0.6
keep=2
if [[ ${LORA:-0} == 1 ]]; then
  # verl's hf_model would write the wrapped names of the adapter; "convsearch merge" makes the model.
  SAVE=[model,optimizer,extra] keep=null OFFLOAD=True VLLM_SHARE=0.5
  LR=${LORA_LR:-1e-5} MICRO_BATCH=2
elif [[ ${DEVICE:-cuda} != cpu ]] && ((WORKERS <= 2)); then
  OFFLOAD=True MICRO_BATCH=$((2 * WORKERS))
fi
KEEP=${KEEP:-$keep}
if [[ -n ${VAL_FILE:-} ]]; then
  TEST_FREQ=${TEST_FREQ:-50}
  SAVE_FREQ=${SAVE_FREQ:-$((TEST_FREQ > 0 ? TEST_FREQ : 100))}
else
  TEST_FREQ=-1 SAVE_FREQ=${SAVE_FREQ:-100}
fi
MICRO_BATCH=$(micro_batch $((BATCH * ROLLOUTS)) "$MICRO_BATCH")
own=(
  reward_model.reward_manager=rewrite_r1
  "custom_reward_function.path='$ROOT/verl/verl/utils/reward_score/rewrite_r1.py'"
  retriever.topk=100 data.truncation=error
  data.custom_cls.path=pkg://convsearch_verl.prompt_rows data.custom_cls.name=PromptRows
)
compose
ref=actor_rollout_ref
[[ ${DEVICE:-cuda} != cpu ]] ||
  command+=(+$ref.rollout.agent.agent_loop_manager_class=convsearch_verl.batch_loop.BatchLoopManager)
if [[ ${LORA:-0} == 1 ]]; then
  command+=(
    $ref.model.lora_rank="${LORA_RANK:-32}" $ref.model.lora_alpha="${LORA_ALPHA:-64}"
    $ref.model.target_modules=all-linear $ref.actor.fsdp_config.model_dtype=bf16
    $ref.actor.entropy_from_logits_with_chunking=True
  )
  # vLLM holds the first model itself and is sent the adapter only, layer by layer.
  [[ ${DEVICE:-cuda} == cpu ]] || command+=(
    $ref.rollout.load_format=safetensors $ref.rollout.layered_summon=True $ref.model.use_shm=False
    $ref.rollout.max_num_seqs=64
  )
fi
launch "$@"
