#!/usr/bin/env bash
# The baseline Search-R1 (arXiv 2503.09516) by the same code: one query a call, as many documents.
export MODEL=${MODEL:?set MODEL to Qwen2.5-3B-Instruct, a folder or a name on the hub}
export TRAIN_FILE=${TRAIN_FILE:-data/qa/train.parquet} OUT=${OUT:-runs/search_r1_grpo}
export ESTIMATOR=grpo STRATEGY=search_r1 VARIANTS=1 FORMAT=${FORMAT:-search_r1}
export TOPK=${TOPK:-10} DOCUMENTS=${DOCUMENTS:-10} RESULT_TOKENS=512 SQUEEZER=${SQUEEZER:-extractive}
export BATCH=${BATCH:-512} MINI_BATCH=${MINI_BATCH:-256} ROLLOUTS=${ROLLOUTS:-5} MICRO_BATCH=8 EPOCHS=15
export PROMPT_TOKENS=4096 RESPONSE_TOKENS=3000
export LR=1e-6 WARMUP_STEPS=100
exec bash "$(dirname "$0")/_run.sh" "$@"
