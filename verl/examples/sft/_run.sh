#!/usr/bin/env bash
# Supervised fine-tuning with verl's own trainer. The named scripts beside it hold the values and end
# in this one; words after a script's name are further overrides and win.
#   MODEL TRAIN_FILE OUT  what the script starts from, trains on, and where it writes
#   VAL_FILE       examples of other conversations: their loss after each epoch; none if not set
#   GPUS NNODES    GPUs of a node (8) and nodes (1); micro-batches follow. With several nodes, also
#                  NODE_RANK, MASTER_ADDR and MASTER_PORT (29500), and the script runs on each
#   LORA=1         an adapter instead of the whole model, for one GPU of 24 to 48 GB
#   LOGGER         further loggers of verl by name, such as wandb
#   DRY_RUN=1      prints the command, a word a line, and does not run it
set -euo pipefail
PYTHON=${PYTHON:-python3}
[[ ${LORA:-0} == 0 && ${DEVICE:-cuda} != cpu ]] || GPUS=${GPUS:-1}
source "$(dirname "${BASH_SOURCE[0]}")/../_gpus.sh"
val=null test_freq=-1
[[ -z ${VAL_FILE:-} ]] || val="'$VAL_FILE'" test_freq=${TEST_FREQ:-after_each_epoch}
save=[model,optimizer,extra,hf_model]
if [[ ${LORA:-0} == 1 ]]; then
  # verl's hf_model would write the wrapped names of the adapter; "convsearch merge" makes the model.
  save=[model,optimizer,extra]
  LR=${LORA_LR:-1e-4} MICRO_BATCH=1
elif [[ ${DEVICE:-cuda} != cpu ]] && ((WORKERS <= 2)); then
  MICRO_BATCH=$WORKERS
fi
MICRO_BATCH=$(micro_batch "$BATCH" "$MICRO_BATCH")
nodes=(--nnodes=1)
((NNODES == 1)) || nodes=(
  "--nnodes=$NNODES" "--node_rank=${NODE_RANK:?set it to 0 on the first node, 1 on the next, ...}"
  "--master_addr=${MASTER_ADDR:?set it to the address of the first node}" "--master_port=${MASTER_PORT:-29500}"
)
command=(
  "$PYTHON" -m torch.distributed.run "${nodes[@]}" "--nproc_per_node=$GPUS" -m verl.trainer.sft_trainer
  "model.path='$MODEL'" engine.strategy=fsdp2
  "data.train_files='$TRAIN_FILE'" "data.val_files=$val"
  data.train_batch_size="$BATCH" data.micro_batch_size_per_gpu="$MICRO_BATCH" data.use_dynamic_bsz=False
  data.max_length="$MAX_TOKENS" data.num_workers=0
  optim.lr="$LR" optim.lr_warmup_steps_ratio=0.1 optim.lr_scheduler_type=cosine
  optim.weight_decay=0.01 optim.betas=[0.9,0.95]
  trainer.total_epochs="$EPOCHS" trainer.n_gpus_per_node="$GPUS" trainer.nnodes="$NNODES"
  trainer.save_freq="${SAVE_FREQ:-after_each_epoch}" trainer.max_ckpt_to_keep="${KEEP:-2}" trainer.test_freq="$test_freq"
  checkpoint.save_contents=$save checkpoint.load_contents=[model,optimizer,extra]
  trainer.logger="$LOGGERS" trainer.project_name=convsearch
  trainer.experiment_name="$(basename "$OUT")" "trainer.default_local_dir='$OUT'"
  "hydra.run.dir='$OUT/hydra'"
)
if [[ ${LORA:-0} == 1 ]]; then
  command+=(
    model.lora_rank="${LORA_RANK:-32}" model.lora_alpha="${LORA_ALPHA:-64}" model.target_modules=all-linear
    engine.model_dtype=bf16
  )
fi
if [[ ${DEVICE:-cuda} == cpu ]]; then
  export VERL_PLATFORM=cpu TORCHDYNAMO_DISABLE=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
  command+=(
    trainer.device=cpu engine.use_torch_compile=False
    model.use_remove_padding=False model.enable_gradient_checkpointing=False
    +model.override_config.attn_implementation=sdpa
    engine.dtype=float32 +engine.mixed_precision.param_dtype=float32 +engine.mixed_precision.reduce_dtype=float32
  )
else
  ((WORKERS > 2 || ${LORA:-0})) || command+=(engine.param_offload=True engine.optimizer_offload=True)
fi
launch "$@"
