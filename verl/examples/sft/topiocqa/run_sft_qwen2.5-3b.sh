#!/usr/bin/env bash
# ConvSearch-R1 (arXiv 2505.15776), first stage: Qwen2.5-3B-Instruct on its own rewrites for TopiOCQA.
export MODEL=${MODEL:-Qwen/Qwen2.5-3B-Instruct}
export TRAIN_FILE=${TRAIN_FILE:-runs/qwen2.5-3b_topiocqa/distill/sft_train.parquet}
export OUT=${OUT:-runs/qwen2.5-3b_topiocqa/sft}
export BATCH=${BATCH:-64} MICRO_BATCH=4 MAX_TOKENS=3072 EPOCHS=2 LR=1e-5
exec bash "$(dirname "$0")/../_run.sh" "$@"
