#!/usr/bin/env bash
# Builds the index of a data set. The named scripts beside it hold the values and end in this one;
# words after a script's name are further options of "convsearch index".
#   CORPUS INDEX  what is indexed, and the folder to make; a build that was killed goes on
#   ENCODER       dense: folder of the encoder
#   GPUS          dense: GPUs of this node that encode together (1)
#   DRY_RUN=1     prints the command, a word a line, and does not run it
source "$(dirname "${BASH_SOURCE[0]}")/_commands.sh"
CONVSEARCH=$(program convsearch)
command=("$CONVSEARCH" index --corpus "$CORPUS" --out "$INDEX")
if [[ ${1:-} == bm25 ]]; then
  command+=(--engine bm25 --k1 "$K1" --b "$B")
else
  [[ ${GPUS:-1} =~ ^[1-9][0-9]*$ ]] || die "GPUS=$GPUS: name the GPUs of this node, such as 1, 2, 4 or 8"
  command+=(--engine dense --encoder "$ENCODER" --batch-size "${BATCH:-256}")
  ((${GPUS:-1} == 1)) || command=("$(program python)" -m convsearch.train.one_machine "$(program torchrun)" --nproc-per-node "$GPUS" --no-python "${command[@]}")
fi
launch "${command[@]}" "${@:2}"
