# Sourced by the _run.sh of grpo_trainer and expand_search: what both tell verl's trainer, from the
# values of the named scripts. own=() holds the words of one of them.
#   ESTIMATOR      grpo, or gae with a critic
#   MINI_BATCH     prompts of one update; VLLM_SHARE of a GPU's memory; OFFLOAD optimizer and weights
#   SAVE           what a checkpoint holds; KEEP how many there are; SAVE_FREQ TEST_FREQ in steps

# Fills "command", which `launch` runs.
compose() {
  local ref=actor_rollout_ref models=actor_rollout_ref.model engines model engine
  engines="$ref.actor.fsdp_config $ref.ref.fsdp_config"
  command=(
    "$PYTHON" -m verl.trainer.main_ppo algorithm.adv_estimator="$ESTIMATOR" "${own[@]}"
    "data.train_files='$TRAIN_FILE'" "data.val_files='${VAL_FILE:-$TRAIN_FILE}'"
    data.train_batch_size="$BATCH" data.seed="${SEED:-0}"
    data.max_prompt_length="$PROMPT_TOKENS" data.max_response_length="$RESPONSE_TOKENS"
    "$ref.model.path='$MODEL'" $ref.actor.strategy=fsdp2 $ref.ref.strategy=fsdp2
    $ref.actor.ppo_mini_batch_size="$MINI_BATCH" $ref.actor.ppo_micro_batch_size_per_gpu="$MICRO_BATCH"
    $ref.ref.log_prob_micro_batch_size_per_gpu="$MICRO_BATCH"
    $ref.rollout.log_prob_micro_batch_size_per_gpu="$MICRO_BATCH"
    $ref.actor.optim.lr="$LR" $ref.actor.optim.lr_warmup_steps="$WARMUP_STEPS"
    $ref.actor.clip_ratio=0.2 $ref.actor.entropy_coeff=0
    $ref.actor.checkpoint.save_contents="$SAVE"
    $ref.actor.checkpoint.load_contents=[model,optimizer,extra]
    $ref.rollout.n="$ROLLOUTS" $ref.rollout.temperature="$TEMPERATURE"
    $ref.rollout.top_p=1.0 $ref.rollout.top_k=-1 $ref.rollout.seed="${SEED:-0}"
    $ref.rollout.tensor_model_parallel_size=1
    $ref.rollout.max_model_len=$((PROMPT_TOKENS + RESPONSE_TOKENS))
    trainer.total_epochs="$EPOCHS" trainer.max_actor_ckpt_to_keep="$KEEP"
    trainer.n_gpus_per_node="$GPUS" trainer.nnodes="$NNODES"
    trainer.test_freq="$TEST_FREQ" trainer.save_freq="$SAVE_FREQ" trainer.val_before_train=False
    trainer.logger="$LOGGERS" trainer.project_name=convsearch
    trainer.experiment_name="$(basename "$OUT")" "trainer.default_local_dir='$OUT'"
    "hydra.run.dir='$OUT/hydra'"
  )
  [[ -z ${VAL_FILE:-} ]] ||
    command+=(trainer.checkpoint_callback_class=convsearch_verl.keep_models.KeepModels)
  if [[ $ESTIMATOR == gae ]]; then
    engines+=" critic.fsdp" models+=" critic.model"
    command+=(
      $ref.actor.use_kl_loss=False critic.strategy=fsdp2 "critic.model.path='$MODEL'"
      critic.optim.lr="$CRITIC_LR" critic.optim.lr_warmup_steps="$CRITIC_WARMUP_STEPS"
      critic.ppo_micro_batch_size_per_gpu="$MICRO_BATCH" trainer.max_critic_ckpt_to_keep="$KEEP"
    )
  else
    command+=($ref.actor.use_kl_loss=True $ref.actor.kl_loss_coef=0.001 $ref.actor.kl_loss_type=low_var_kl)
  fi
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
    command+=($ref.rollout.name=vllm $ref.rollout.gpu_memory_utilization="$VLLM_SHARE" $ref.ref.fsdp_config.param_offload=True)
    for model in $models; do
      command+=("$model.use_remove_padding=True" "$model.enable_gradient_checkpointing=True")
    done
    for engine in $engines; do
      [[ $engine == *.ref.* ]] || command+=("$engine.param_offload=$OFFLOAD" "$engine.optimizer_offload=$OFFLOAD")
    done
  fi
}
