#!/usr/bin/env bash
# ConvSearch-R1 (arXiv 2505.15776), first stage: Llama2-7B-Chat on its own rewrites for QReCC.
export MODEL=${MODEL:-meta-llama/Llama-2-7b-chat-hf}
export TRAIN_FILE=${TRAIN_FILE:-runs/llama2-7b_qrecc/distill/sft_train.parquet}
export OUT=${OUT:-runs/llama2-7b_qrecc/sft}
export BATCH=${BATCH:-64} MICRO_BATCH=2 MAX_TOKENS=3072 EPOCHS=2 LR=1e-5
exec bash "$(dirname "$0")/../_run.sh" "$@"
