#!/usr/bin/env bash
# Serves the index of a data set, with its gold passages, until Ctrl-C. The named scripts beside it
# hold the values and end in this one; words after a script's name are further options of
# "convsearch serve".
#   INDEX         the index
#   QRELS         the gold passages of the query ids that clients send; none for wiki-18
#   ENCODER       dense: folder of the encoder that made the index
#   HOST PORT     where to listen (127.0.0.1, 8000); beyond this machine a key is asked for
#   DRY_RUN=1     prints the command, a word a line, and does not run it
source "$(dirname "${BASH_SOURCE[0]}")/_commands.sh"
CONVSEARCH=$(program convsearch)
launch "$CONVSEARCH" serve --index "$INDEX" ${QRELS:+--qrels "$QRELS"} ${ENCODER:+--encoder "$ENCODER"} \
  --host "${HOST:-127.0.0.1}" --port "${PORT:-8000}" "$@"
