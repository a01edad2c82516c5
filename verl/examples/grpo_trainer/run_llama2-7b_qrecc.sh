#!/usr/bin/env bash
# ConvSearch-R1 (arXiv 2505.15776), second stage: Llama2-7B-Chat on QReCC.
export MODEL=${MODEL:?set MODEL to the fine-tuned model, runs/llama2-7b_qrecc/sft_model, made by scripts/merge_checkpoint.sh}
export TRAIN_FILE=${TRAIN_FILE:-data/qrecc/grpo.parquet}
export OUT=${OUT:-runs/llama2-7b_qrecc/grpo}
export BATCH=${BATCH:-128} ROLLOUTS=${ROLLOUTS:-8} MICRO_BATCH=4 EPOCHS=9
export PROMPT_TOKENS=1536 RESPONSE_TOKENS=1024 TEMPERATURE=0.7
export LR=1e-6 WARMUP_STEPS=100
exec bash "$(dirname "$0")/_run.sh" "$@"
