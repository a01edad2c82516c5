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
[[ -n ${DRY_RUN:-} ]] || : "${RETRIEVER_URL:?start a server with \"convsearch serve\" and set RETRIEVER_URL to its address}"

save=[model,optimizer,extra,hf_model] keep=2 offload=False vllm_share=0.6
if [[ ${LORA:-0} == 1 ]]; then
  # verl's hf_model would write the wrapped names of the adapter; "convsearch merge" makes the model.
  save=[model,optimizer,extra] keep=null offload=True vllm_share=0.5
  LR=${LORA_LR:-1e-5} MICRO_BATCH=2
elif [[ ${DEVICE:-cuda} != cpu ]] && ((WORKERS <= 2)); then
  offload=True MICRO_BATCH=$((2 * WORKERS))
fi
MICRO_BATCH=$(micro_batch $((BATCH * ROLLOUTS)) "$MICRO_BATCH")
ref=actor_rollout_ref
command=(
  "$PYTHON" -m verl.trainer.main_ppo
  algorithm.adv_estimator=grpo
  reward_model.reward_manager=rewrite_r1
  "custom_reward_function.path='$ROOT/verl/verl/utils/reward_score/rewrite_r1.py'"
  retriever.topk=100
  "data.train_files='$TRAIN_FILE'" "data.val_files='${VAL_FILE:-$TRAIN_FILE}'"
  data.train_batch_size="$BATCH" data.truncation=left data.seed="${SEED:-0}"
  data.max_prompt_length="$PROMPT_TOKENS" data.max_response_length="$RESPONSE_TOKENS"
  "$ref.model.path='$MODEL'"
  $ref.actor.strategy=fsdp2 $ref.ref.strategy=fsdp2
  $ref.actor.ppo_mini_batch_size="$BATCH" $ref.actor.ppo_micro_batch_size_per_gpu="$MICRO_BATCH"
  $ref.ref.log_prob_micro_batch_size_per_gpu="$MICRO_BATCH"
  $ref.rollout.log_prob_micro_batch_size_per_gpu="$MICRO_BATCH"
  $ref.actor.optim.lr="$LR" $ref.actor.optim.lr_warmup_steps="$WARMUP_STEPS"
  $ref.actor.clip_ratio=0.2 $ref.actor.entropy_coeff=0
  $ref.actor.use_kl_loss=True $ref.actor.kl_loss_coef=0.001 $ref.actor.kl_loss_type=low_var_kl
  $ref.actor.checkpoint.save_contents=$save
  $ref.actor.checkpoint.load_contents=[model,optimizer,extra]
  $ref.rollout.n="$ROLLOUTS" $ref.rollout.temperature="$TEMPERATURE"
  $ref.rollout.top_p=1.0 $ref.rollout.top_k=-1 $ref.rollout.seed="${SEED:-0}"
  $ref.rollout.tensor_model_parallel_size=1
  $ref.rollout.max_model_len=$((PROMPT_TOKENS + RESPONSE_TOKENS))
  trainer.total_epochs="$EPOCHS" trainer.max_actor_ckpt_to_keep="${KEEP:-$keep}"
  trainer.n_gpus_per_node="$GPUS" trainer.nnodes="$NNODES"
  trainer.logger="$LOGGERS" trainer.project_name=convsearch
  trainer.experiment_name="$(basename "$OUT")" "trainer.default_local_dir='$OUT'"
  "hydra.run.dir='$OUT/hydra'" trainer.val_before_train=False
)
if [[ -n ${VAL_FILE:-} ]]; then
  test_freq=${TEST_FREQ:-50}
  save_freq=${SAVE_FREQ:-$((test_freq > 0 ? test_freq : 100))}
  command+=(trainer.checkpoint_callback_class=convsearch_verl.keep_models.KeepModels)
else
  test_freq=-1 save_freq=${SAVE_FREQ:-100}
fi
command+=(trainer.test_freq="$test_freq" trainer.save_freq="$save_freq")
if [[ ${LORA:-0} == 1 ]]; then
  command+=(
    $ref.model.lora_rank="${LORA_RANK:-32}" $ref.model.lora_alpha="${LORA_ALPHA:-64}"
    $ref.model.target_modules=all-linear $ref.actor.fsdp_config.model_dtype=bf16
    $ref.actor.entropy_from_logits_with_chunking=True
  )
fi
if [[ ${DEVICE:-cuda} == cpu ]]; then
  export VERL_PLATFORM=cpu TORCHDYNAMO_DISABLE=1 OMP_WAIT_POLICY=PASSIVE RAY_memory_monitor_refresh_ms=0
  export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TQ_LOGGING_LEVEL=ERROR
  command+=(
    trainer.device=cpu reward.num_workers=1
    ray_kwargs.ray_init.num_cpus=16 +ray_kwargs.ray_init.num_gpus="$GPUS" +ray_kwargs.ray_init.include_dashboard=False
    $ref.model.use_remove_padding=False $ref.model.enable_gradient_checkpointing=False
    +$ref.model.override_config.attn_implementation=sdpa
    $ref.actor.use_torch_compile=False $ref.actor.fsdp_config.use_torch_compile=False $ref.ref.use_torch_compile=False
    $ref.rollout.name=hf_cpu $ref.rollout.dtype=float32 $ref.rollout.free_cache_engine=False
    $ref.rollout.max_num_seqs=$((BATCH * ROLLOUTS)) $ref.rollout.agent.num_workers=1
    +$ref.rollout.agent.agent_loop_manager_class=convsearch_verl.batch_loop.BatchLoopManager
    data.dataloader_num_workers=0 transfer_queue.backend.SimpleStorage.num_data_storage_units=1
  )
  for engine in $ref.actor.fsdp_config $ref.ref.fsdp_config; do
    command+=("$engine.dtype=float32" "+$engine.mixed_precision.param_dtype=float32" "+$engine.mixed_precision.reduce_dtype=float32")
  done
else
  command+=(
    $ref.rollout.name=vllm $ref.rollout.gpu_memory_utilization=$vllm_share
    $ref.model.use_remove_padding=True $ref.model.enable_gradient_checkpointing=True
    $ref.actor.fsdp_config.param_offload=$offload $ref.actor.fsdp_config.optimizer_offload=$offload
    $ref.ref.fsdp_config.param_offload=True
  )
  # vLLM holds the first model itself and is sent the adapter only, layer by layer.
  [[ ${LORA:-0} == 0 ]] || command+=(
    $ref.rollout.load_format=safetensors $ref.rollout.layered_summon=True $ref.model.use_shm=False
    $ref.rollout.max_num_seqs=64
  )
fi
launch "$@"
