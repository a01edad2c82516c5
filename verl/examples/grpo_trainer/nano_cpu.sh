#!/usr/bin/env bash
# The second stage with the embedded policy and data set, on two CPU cores.
export MODEL=${MODEL:?set MODEL to the fine-tuned nano policy, for example runs/quickstart/sft/model}
export TRAIN_FILE=${TRAIN_FILE:-runs/quickstart/grpo/grpo.parquet}
export OUT=${OUT:-runs/nano_cpu/grpo}
export DEVICE=cpu GPUS=1 BATCH=32 ROLLOUTS=8 MICRO_BATCH=64 EPOCHS=2
export PROMPT_TOKENS=384 RESPONSE_TOKENS=96 TEMPERATURE=1.0
export LR=1e-4 WARMUP_STEPS=5
exec bash "$(dirname "$0")/_run.sh" "$@"
