"""A data set folder and a BM25 index of a few passages, on disk."""

from pathlib import Path

from rewriting import some_turns

from convsearch.files import write_qrels, write_turns
from convsearch.passages import write_passages
from convsearch.passport import write_passport
from convsearch.types import Passage


def write_toy_dataset(folder: Path) -> Path:
    """Nine test turns and twelve training turns; a question's words are its right passage."""
    tests, trains = some_turns(9, split="test"), some_turns(21)[9:]
    turns = [*tests, *trains]
    write_turns(folder / "turns.jsonl", turns)
    passages = [
        Passage(doc_id=f"{kind}{t.qid}", title="", text=text)
        for t in turns
        for kind, text in (("d", t.question), ("x", t.question.split()[0]))
    ]
    write_passages(folder / "corpus.jsonl", passages)
    write_qrels(folder / "qrels.trec", {t.qid: {f"d{t.qid}": 1} for t in turns})
    write_passport(folder / "run.json", stage="data", settings={"name": "toy"})
    return folder


def write_toy_index(folder: Path, dataset: Path) -> Path:
    """The BM25 index of that data set, k1 0.9 and b 0.4."""
    from retriever_server.indexing.bm25 import build_bm25_index

    build_bm25_index(dataset / "corpus.jsonl", folder)
    return folder
