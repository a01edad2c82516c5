# Sourced by every _run.sh: how a batch divides among GPUS per node and NNODES nodes.
GPUS=${GPUS:-8} NNODES=${NNODES:-1}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

[[ $GPUS =~ ^[1-9][0-9]*$ ]] || die "GPUS=$GPUS: name the GPUs of one node, such as 1, 2, 4 or 8"
[[ $NNODES =~ ^[1-9][0-9]*$ ]] || die "NNODES=$NNODES: name the number of nodes"
[[ ${LORA:-0} == [01] ]] || die "LORA=$LORA: 1 trains an adapter, 0 the whole model"
[[ ${LOGGER:-} =~ ^[a-z_,-]*$ ]] || die "LOGGER=$LOGGER: name loggers of verl, such as wandb or tensorboard,wandb"
WORKERS=$((GPUS * NNODES))
LOGGERS=[console,file${LOGGER:+,$LOGGER}]

# Largest micro-batch that is at most $2 and divides the share of one GPU in a batch of $1.
micro_batch() {
  local batch=$1 micro=$2 share
  ((batch % WORKERS == 0)) ||
    die "a batch of $batch does not divide among $GPUS GPUs x $NNODES nodes; use 1, 2, 4 or 8 GPUs, or set BATCH"
  share=$((batch / WORKERS))
  while ((share % micro)); do micro=$((micro - 1)); done
  printf '%s' "$micro"
}

# Runs "${command[@]}" with the caller's words after it, or prints it under DRY_RUN=1.
launch() {
  if [[ -n ${DRY_RUN:-} ]]; then
    printf '%s\n' "${command[@]}" "$@"
  else
    mkdir -p "$OUT"
    # A file for each start: verl begins its file anew, and a resumed run keeps what came before.
    export VERL_FILE_LOGGER_PATH=${VERL_FILE_LOGGER_PATH:-$(cd "$OUT" && pwd)/metrics_$(date -u +%Y%m%dT%H%M%SZ).jsonl}
    # One node: nothing of the run is reached from outside (docs/security.md).
    ((NNODES > 1)) || command=("$PYTHON" -m convsearch.train.one_machine "${command[@]}")
    exec "${command[@]}" "$@"
  fi
}
