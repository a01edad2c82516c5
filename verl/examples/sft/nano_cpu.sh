#!/usr/bin/env bash
# The first stage with the embedded policy and data set, on two CPU cores.
export MODEL=${MODEL:-assets/nano}
export TRAIN_FILE=${TRAIN_FILE:-runs/quickstart/distill/sft_train.parquet}
export OUT=${OUT:-runs/nano_cpu/sft}
export DEVICE=cpu GPUS=1 BATCH=32 MICRO_BATCH=32 MAX_TOKENS=480 EPOCHS=2 LR=3e-4
exec bash "$(dirname "$0")/_run.sh" "$@"
