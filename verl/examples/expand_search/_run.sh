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
[[ ${LORA:-0} == 0 ]] || die "LORA=1: search agents train the whole model here; leave it out"
[[ -n ${DRY_RUN:-} ]] || : "${RETRIEVER_URL:?start a server with \"convsearch serve\" and set RETRIEVER_URL to its address}"

offload=False
[[ ${DEVICE:-cuda} == cpu ]] || ((WORKERS > 2)) || offload=True
MINI_BATCH=${MINI_BATCH:-$BATCH} ROLLOUTS=${ROLLOUTS:-1}
MICRO_BATCH=$(micro_batch $((MINI_BATCH * ROLLOUTS)) "$MICRO_BATCH")
ref=actor_rollout_ref
command=(
  "$PYTHON" -m verl.trainer.main_ppo
  algorithm.adv_estimator="$ESTIMATOR" algorithm.gamma=1.0 algorithm.lam=1.0
  reward_model.reward_manager=search_agent
  $ref.rollout.agent.default_agent_loop=search_agent
  search_agent.strategy="$STRATEGY" search_agent.num_variants="$VARIANTS"
  search_agent.tool_format="$FORMAT" search_agent.topk="$TOPK"
  search_agent.max_documents="$DOCUMENTS" search_agent.max_result_tokens="$RESULT_TOKENS"
  search_agent.squeezer="$SQUEEZER" search_agent.max_turns="${TURNS:-4}"
  "search_agent.llm.model='${SQUEEZER_MODEL:-}'" "search_agent.llm.url='${SQUEEZER_URL:-}'"
  "search_agent.llm.cache='${SQUEEZER_CACHE:-}'"
  "data.train_files='$TRAIN_FILE'" "data.val_files='${VAL_FILE:-$TRAIN_FILE}'"
  data.train_batch_size="$BATCH" data.truncation=error data.seed="${SEED:-0}"
  data.max_prompt_length="$PROMPT_TOKENS" data.max_response_length="$RESPONSE_TOKENS"
  "$ref.model.path='$MODEL'"
  $ref.actor.strategy=fsdp2 $ref.ref.strategy=fsdp2
  $ref.actor.ppo_mini_batch_size="$MINI_BATCH" $ref.actor.ppo_micro_batch_size_per_gpu="$MICRO_BATCH"
  $ref.ref.log_prob_micro_batch_size_per_gpu="$MICRO_BATCH"
  $ref.rollout.log_prob_micro_batch_size_per_gpu="$MICRO_BATCH"
  $ref.actor.optim.lr="$LR" $ref.actor.optim.lr_warmup_steps="$WARMUP_STEPS"
  $ref.actor.clip_ratio=0.2 $ref.actor.entropy_coeff=0
  $ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]
  $ref.actor.checkpoint.load_contents=[model,optimizer,extra]
  $ref.rollout.n="$ROLLOUTS" $ref.rollout.temperature=1.0
  $ref.rollout.top_p=1.0 $ref.rollout.top_k=-1 $ref.rollout.seed="${SEED:-0}"
  $ref.rollout.tensor_model_parallel_size=1
  $ref.rollout.max_model_len=$((PROMPT_TOKENS + RESPONSE_TOKENS))
  trainer.total_epochs="$EPOCHS" trainer.max_actor_ckpt_to_keep="${KEEP:-2}"
  trainer.n_gpus_per_node="$GPUS" trainer.nnodes="$NNODES"
  trainer.logger="$LOGGERS" trainer.project_name=convsearch
  trainer.experiment_name="$(basename "$OUT")" "trainer.default_local_dir='$OUT'"
  "hydra.run.dir='$OUT/hydra'" trainer.val_before_train=False
)
engines="$ref.actor.fsdp_config $ref.ref.fsdp_config" models=$ref.model
if [[ $ESTIMATOR == gae ]]; then
  engines+=" critic.fsdp" models+=" critic.model"
  command+=(
    $ref.actor.use_kl_loss=False critic.strategy=fsdp2 "critic.model.path='$MODEL'"
    critic.optim.lr="$CRITIC_LR" critic.optim.lr_warmup_steps="$CRITIC_WARMUP_STEPS"
    critic.ppo_micro_batch_size_per_gpu="$MICRO_BATCH" trainer.max_critic_ckpt_to_keep="${KEEP:-2}"
  )
else
  command+=($ref.actor.use_kl_loss=True $ref.actor.kl_loss_coef=0.001 $ref.actor.kl_loss_type=low_var_kl)
fi
if [[ -n ${VAL_FILE:-} ]]; then
  test_freq=${TEST_FREQ:-100}
  command+=(trainer.checkpoint_callback_class=convsearch_verl.keep_models.KeepModels)
else
  test_freq=-1
fi
command+=(trainer.test_freq="$test_freq" trainer.save_freq="${SAVE_FREQ:-100}")
if [[ ${DEVICE:-cuda} == cpu ]]; then
  export VERL_PLATFORM=cpu TORCHDYNAMO_DISABLE=1 OMP_WAIT_POLICY=PASSIVE RAY_memory_monitor_refresh_ms=0
  export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TQ_LOGGING_LEVEL=ERROR
  command+=(
    trainer.device=cpu reward.num_workers=1
    ray_kwargs.ray_init.num_cpus=16 +ray_kwargs.ray_init.num_gpus="$GPUS" +ray_kwargs.ray_init.include_dashboard=False
    $ref.actor.use_torch_compile=False $ref.ref.use_torch_compile=False
    $ref.rollout.name=hf_cpu $ref.rollout.dtype=float32 $ref.rollout.free_cache_engine=False
    $ref.rollout.max_num_seqs=$((BATCH * ROLLOUTS)) $ref.rollout.agent.num_workers=1
    data.dataloader_num_workers=0 transfer_queue.backend.SimpleStorage.num_data_storage_units=1
  )
  for model in $models; do
    command+=("$model.use_remove_padding=False" "$model.enable_gradient_checkpointing=False" "+$model.override_config.attn_implementation=sdpa")
  done
  for engine in $engines; do
    command+=("$engine.dtype=float32" "+$engine.mixed_precision.param_dtype=float32" "+$engine.mixed_precision.reduce_dtype=float32" "$engine.use_torch_compile=False")
  done
else
  command+=($ref.rollout.name=vllm $ref.rollout.gpu_memory_utilization=0.6 $ref.ref.fsdp_config.param_offload=True)
  for model in $models; do
    command+=("$model.use_remove_padding=True" "$model.enable_gradient_checkpointing=True")
  done
  for engine in $engines; do
    [[ $engine == *.ref.* ]] || command+=("$engine.param_offload=$offload" "$engine.optimizer_offload=$offload")
  done
fi
launch "$@"
