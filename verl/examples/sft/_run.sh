#!/usr/bin/env bash
# Supervised fine-tuning with verl's own trainer. The named scripts beside it hold the values and end
# in this one; words after a script's name are further overrides and win.
#   MODEL TRAIN_FILE OUT  what the script starts from, trains on, and where it writes
#   VAL_FILE              examples for the validation loss, none if not set
#   DRY_RUN=1             prints the command, a word a line, and does not run it
set -euo pipefail
PYTHON=${PYTHON:-python3}
val=null
[[ -z ${VAL_FILE:-} ]] || val="'$VAL_FILE'"
command=(
  "$PYTHON" -m torch.distributed.run --standalone --nnodes=1 "--nproc_per_node=$NPROC" -m verl.trainer.sft_trainer
  "model.path='$MODEL'" engine.strategy=fsdp2
  "data.train_files='$TRAIN_FILE'" "data.val_files=$val"
  data.train_batch_size="$BATCH" data.micro_batch_size_per_gpu="$MICRO_BATCH" data.use_dynamic_bsz=False
  data.max_length="$MAX_TOKENS" data.num_workers=0
  optim.lr="$LR" optim.lr_warmup_steps_ratio=0.1 optim.lr_scheduler_type=cosine
  optim.weight_decay=0.01 optim.betas=[0.9,0.95]
  trainer.total_epochs="$EPOCHS" trainer.n_gpus_per_node="$NPROC"
  trainer.save_freq=after_each_epoch trainer.max_ckpt_to_keep=2 trainer.test_freq=-1
  checkpoint.save_contents=[model,optimizer,extra,hf_model] checkpoint.load_contents=[model,optimizer,extra]
  trainer.logger=[console,file] trainer.project_name=convsearch
  trainer.experiment_name="$(basename "$OUT")" "trainer.default_local_dir='$OUT'"
)
if [[ ${DEVICE:-cuda} == cpu ]]; then
  export VERL_PLATFORM=cpu TORCHDYNAMO_DISABLE=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
  command+=(
    trainer.device=cpu engine.use_torch_compile=False
    model.use_remove_padding=False model.enable_gradient_checkpointing=False
    +model.override_config.attn_implementation=sdpa
    engine.dtype=float32 +engine.mixed_precision.param_dtype=float32 +engine.mixed_precision.reduce_dtype=float32
  )
fi
command+=("$@")
if [[ -n ${DRY_RUN:-} ]]; then
  printf '%s\n' "${command[@]}"
else
  exec "${command[@]}"
fi
