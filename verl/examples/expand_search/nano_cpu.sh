#!/usr/bin/env bash
# A small policy on CPU cores: ESTIMATOR=grpo, or gae for PPO with a critic.
export MODEL=${MODEL:?set MODEL to a small policy that was taught the form nano}
export TRAIN_FILE=${TRAIN_FILE:-data/hops/train.parquet} OUT=${OUT:-runs/nano_cpu/search_agent}
export ESTIMATOR=${ESTIMATOR:-grpo} STRATEGY=expand_search VARIANTS=${VARIANTS:-3} FORMAT=nano
export TOPK=${TOPK:-3} DOCUMENTS=${DOCUMENTS:-null} RESULT_TOKENS=${RESULT_TOKENS:-96} SQUEEZER=${SQUEEZER:-extractive}
export DEVICE=cpu GPUS=1 BATCH=${BATCH:-8} ROLLOUTS=${ROLLOUTS:-4} MICRO_BATCH=16 EPOCHS=${EPOCHS:-1}
export PROMPT_TOKENS=${PROMPT_TOKENS:-128} RESPONSE_TOKENS=${RESPONSE_TOKENS:-512} TURNS=${TURNS:-3}
export LR=${LR:-1e-4} WARMUP_STEPS=0 CRITIC_LR=1e-4 CRITIC_WARMUP_STEPS=0
exec bash "$(dirname "$0")/_run.sh" "$@"
