#!/usr/bin/env bash
# ExpandSearch with GRPO: three queries a call, as many documents a call as run_search_r1_grpo.sh.
export MODEL=${MODEL:?set MODEL to Qwen2.5-3B-Instruct, a folder or a name on the hub}
export TRAIN_FILE=${TRAIN_FILE:-data/qa/train.parquet} OUT=${OUT:-runs/expand_search_grpo}
export ESTIMATOR=grpo STRATEGY=expand_search VARIANTS=${VARIANTS:-3} FORMAT=${FORMAT:-hermes}
export TOPK=${TOPK:-10} DOCUMENTS=${DOCUMENTS:-10} RESULT_TOKENS=512 SQUEEZER=${SQUEEZER:-extractive}
export BATCH=${BATCH:-512} MINI_BATCH=${MINI_BATCH:-256} ROLLOUTS=${ROLLOUTS:-5} MICRO_BATCH=8 EPOCHS=15
export PROMPT_TOKENS=4096 RESPONSE_TOKENS=3000
export LR=1e-6 WARMUP_STEPS=100
exec bash "$(dirname "$0")/_run.sh" "$@"
