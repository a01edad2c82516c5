"""TopiOCQA (Adlakha et al. 2022): raw files to a data set folder.

`topiocqa_{train,dev}.json` hold the conversations, `retriever_all_history_{train,dev}.json` the
relevant passages (`positive_ctxs`, DPR's form), `full_wiki_segments.tsv` the 25,700,592 passages.
The published dev data is our split `test`, as in the papers; `dev` is held out of the training
data.
"""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from convsearch.data.corpus_job import check_found, make_corpus, prepared_folder
from convsearch.data.dataset import PASSPORT, QRELS, TURN_INFO, TURNS
from convsearch.data.json_array import read_json_array
from convsearch.data.outputs import folder_output
from convsearch.data.published import check_counts, check_early
from convsearch.data.raw_turns import Kept, RawSource, count_turns, hold_out
from convsearch.data.segments import Quoting, read_segments
from convsearch.data.topiocqa_turns import (
    PUBLISHED_PASSAGES,
    PUBLISHED_TURNS,
    SET_NAME,
    SPLIT_OF,
    read_topic_turns,
    switches_by_topic,
    turn_key,
)
from convsearch.errors import DataError
from convsearch.files import Qrels, field, write_qrels, write_turn_info, write_turns
from convsearch.passport import write_passport
from convsearch.types import Turn

STAGE = "data topiocqa"
PUBLISHED = {**PUBLISHED_TURNS, "num_passages_read": PUBLISHED_PASSAGES}

GoldChoice = Literal["all", "first"]
"""`all` positive passages of a turn are relevant; `first` is what the original takes."""


def convert_topiocqa(
    source: RawSource,
    out: Path,
    kept: Kept,
    *,
    gold: GoldChoice = "all",
    quoting: Quoting = "auto",
    fresh: bool = False,
) -> dict[str, int]:
    """Writes `out` and returns the counts, which are also in its passport.

    Turns without a relevant passage are left out and counted (`turns_without_gold`); they stay in
    the histories of later turns. `turn_info.jsonl` says which turns switch the topic. Raises
    DataError, MissingFileError, DownloadError or ConfigError; `out` is then untouched.
    """
    started = time.monotonic()
    files = source.files(SET_NAME)
    path_of = {name: each.path for name, each in files.items()}
    job = {
        "name": SET_NAME if kept.keep_one_in == 1 else f"{SET_NAME}-1in{kept.keep_one_in}",
        "gold": gold,
        "quoting": quoting,
        "keep_one_in": kept.keep_one_in,
        "raw_files": {name: each.sha256 for name, each in files.items()},
    }
    output = folder_output(
        out, STAGE, {**job, "validation_share": kept.validation_share, "seed": kept.seed}
    )
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    counts: Counter[str] = Counter(turns_without_gold=0, added_agent_messages=0)
    with prepared_folder(out, job) as folder:
        turns: list[Turn] = []
        golds: dict[str, list[str]] = {}
        topics: dict[str, str] = {}
        for raw_split, split in SPLIT_OF.items():
            read = _turns(
                path_of[f"topiocqa_{raw_split}.json"],
                _golds(path_of[f"retriever_all_history_{raw_split}.json"], gold),
                raw_split,
                counts,
                topics,
            )
            turns += [turn for turn, _ in read]
            golds |= {turn.qid: ids for turn, ids in read}
            counts[f"num_raw_{split}_turns"] = len(read)
            counts[f"num_raw_{split}_conversations"] = len({t.conv_id for t, _ in read})
        if not kept.allow_count_mismatch:
            check_early(counts, PUBLISHED, dict(kept.expected))
        turns = hold_out(turns, share=kept.validation_share, seed=kept.seed)
        wanted = {doc_id: qid for qid, ids in golds.items() for doc_id in ids}
        report = make_corpus(
            folder,
            lambda: read_segments(path_of["full_wiki_segments.tsv"], quoting),
            wanted=wanted.keys(),
            keep_one_in=kept.keep_one_in,
            on_progress=source.on_progress,
        )
        check_found(wanted, report)
        count_turns(turns, counts)
        counts["num_passages"] = report.num_passages
        counts["num_passages_read"] = report.num_read
        counts["num_blank_passages"] = report.num_blank
        counts["count_mismatches"] = len(
            check_counts(
                counts,
                PUBLISHED,
                dict(kept.expected),
                allow_mismatch=kept.allow_count_mismatch,
            )
        )
        qrels: Qrels = {turn.qid: dict.fromkeys(golds[turn.qid], 1) for turn in turns}
        write_turns(folder / TURNS, turns)
        write_qrels(folder / QRELS, qrels)
        write_turn_info(folder / TURN_INFO, switches_by_topic(turns, topics))
        write_passport(
            folder / PASSPORT,
            stage=STAGE,
            settings={**job, "validation_share": kept.validation_share},
            counts=counts,
            seed=kept.seed,
            seconds=round(time.monotonic() - started, 3),
            made=output.identity,
        )
    return dict(counts)


def _golds(path: Path, choice: GoldChoice) -> dict[tuple[str, int], list[str]]:
    """(conversation, turn) -> ids of its relevant passages, each once, in the file's order."""
    golds: dict[tuple[str, int], list[str]] = {}
    for where, record in read_json_array(path):
        key = turn_key(record, "conv_id", "turn_id", where)
        if key in golds:
            raise DataError(f"{where}: conversation {key[0]}, turn {key[1]} occurs twice")
        ids = []
        for passage in field(record, "positive_ctxs", list, where):
            doc_id = passage.get("passage_id") if isinstance(passage, dict) else None
            if not isinstance(doc_id, str | int) or not str(doc_id).strip():
                raise DataError(f'{where}: a positive passage has no "passage_id"')
            ids.append(str(doc_id).removeprefix("wiki:"))
        golds[key] = list(dict.fromkeys(ids))[: 1 if choice == "first" else None]
    return golds


def _turns(
    path: Path,
    golds: Mapping[tuple[str, int], list[str]],
    raw_split: str,
    counts: Counter[str],
    topics: dict[str, str],
) -> list[tuple[Turn, list[str]]]:
    """Turns that have a relevant passage, with its ids. Adds every turn's topic to `topics`."""
    turns: list[tuple[Turn, list[str]]] = []
    for where, key, turn, topic in read_topic_turns(path, raw_split, counts):
        if key not in golds:
            raise DataError(
                f"{where}: conversation {key[0]}, turn {key[1]} has no entry in the file of "
                "relevant passages; both files must be of the same release"
            )
        topics[turn.qid] = topic
        turns.append((turn, golds[key]))
    kept = [pair for pair in turns if pair[1]]
    counts["turns_without_gold"] += len(turns) - len(kept)
    if not kept:
        raise DataError(f"{path}: no turn with a relevant passage")
    return kept
