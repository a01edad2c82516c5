"""A data set folder: `turns.jsonl`, `corpus.jsonl`, `qrels.trec` and its passport `run.json`, and
where topic switches are known `turn_info.jsonl`.

All but the passport may be compressed (`.gz` after the name).
"""

from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError, MissingFileError
from convsearch.files import Qrels, Record, gold_ids, read_qrels, read_turn_info, read_turns
from convsearch.texts import read_json_object
from convsearch.types import Turn

TURNS = "turns.jsonl"
CORPUS = "corpus.jsonl"
QRELS = "qrels.trec"
TURN_INFO = "turn_info.jsonl"
PASSPORT = "run.json"

_NEXT_STEP = 'make a data set with "convsearch data mini" (see also docs/own-data.md)'
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An opened data set folder. Turns and qrels are in memory, the corpus stays on disk."""

    name: str
    folder: Path
    turns_path: Path
    corpus_path: Path
    """May be absent where the passport says so; see `without_corpus`."""
    qrels_path: Path
    all_turns: tuple[Turn, ...]
    qrels: Qrels

    def turns(self, split: str | None = None) -> list[Turn]:
        """The turns of one split, or all. Raises DataError where a split has none."""
        kept = [t for t in self.all_turns if split is None or t.split == split]
        if not kept:
            splits = ", ".join(sorted({t.split for t in self.all_turns}))
            raise DataError(
                f"{self.turns_path}: no turns of split {split!r}; splits here: {splits}"
            )
        return kept

    def topic_switches(self) -> dict[str, bool | None]:
        """What `topic_switches_beside` finds in this folder; for evaluation, not for a policy."""
        return topic_switches_beside(self.turns_path)


def load_dataset(folder: Path) -> Dataset:
    """Opens a data set folder and checks that every turn has a relevant passage in the qrels.

    Raises MissingFileError that names each file not there, and DataError for a bad file, for two
    variants of one file, or for turns without judgements. The corpus is not read, and may be
    missing where the passport says so.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; {_NEXT_STEP}")
    paths = {name: find_file(folder, name) for name in (TURNS, CORPUS, QRELS)}
    if paths[CORPUS] is None and without_corpus(folder):
        paths[CORPUS] = folder / CORPUS
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise MissingFileError(f"{folder}: {' and '.join(missing)} missing; {_NEXT_STEP}")
    turns_path, corpus_path, qrels_path = (path for path in paths.values() if path is not None)
    turns, qrels = tuple(read_turns(turns_path)), read_qrels(qrels_path)
    unjudged = [t.qid for t in turns if t.qid not in qrels or not gold_ids(qrels, t.qid)]
    if unjudged:
        some = ", ".join(unjudged[:_SHOWN]) + (", ..." if len(unjudged) > _SHOWN else "")
        raise DataError(
            f"{qrels_path}: no relevant passage for {len(unjudged)} of {len(turns)} turns "
            f"({some}); use the qrels that belong to {turns_path.name}"
        )
    return Dataset(
        name=_name(folder),
        folder=folder,
        turns_path=turns_path,
        corpus_path=corpus_path,
        qrels_path=qrels_path,
        all_turns=turns,
        qrels=qrels,
    )


def find_file(folder: Path, name: str) -> Path | None:
    """`folder/name` or its `.gz` variant; None where neither is there.

    Raises DataError where both are: which one is meant cannot be known.
    """
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(found) > 1:
        raise DataError(f"{folder}: holds both {name} and {name}.gz; remove one of them")
    return found[0] if found else None


def without_corpus(folder: Path) -> str:
    """Why the folder has no corpus and what to do, where its passport says so; else empty.

    Evaluation against an index or a server needs no corpus.
    """
    if not (folder / PASSPORT).is_file():
        return ""
    return str(_settings(folder).get("without_corpus", ""))


def topic_switches_beside(turns_path: Path) -> dict[str, bool | None]:
    """qid -> topic switch, from the `turn_info.jsonl` of the same folder; empty without one.

    Raises DataError for a bad file.
    """
    path = find_file(turns_path.parent, TURN_INFO)
    return read_turn_info(path) if path else {}


def _name(folder: Path) -> str:
    """The name in the passport, else the folder's."""
    if not (folder / PASSPORT).is_file():
        return folder.resolve().name
    return str(_settings(folder)["name"])


def _settings(folder: Path) -> Record:
    """Those in the passport. Raises DataError where it is not that of a data set."""
    path = folder / PASSPORT
    settings = read_json_object(path, _NEXT_STEP).get("settings")
    if not isinstance(settings, dict) or "name" not in settings:
        raise DataError(f"{path}: not the passport of a data set (no settings.name); {_NEXT_STEP}")
    return settings
