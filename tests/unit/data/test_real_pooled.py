"""The converter on the real data beside the project; skipped where they are absent."""

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from convsearch.data.dataset import load_dataset
from convsearch.data.pooled import convert_pooled
from convsearch.errors import DataError
from convsearch.passages import iter_passages

REAL = Path(__file__).parents[4] / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"real data absent: {REAL} is not there"),
]
NUM_TURNS = 300
"""Turns taken from each split, so that a test takes seconds."""
NUM_OTHERS = 2000
"""Passages taken beside the relevant ones."""


def real_lines(name: str, part: str) -> Iterator[str]:
    with gzip.open(REAL / name / f"{part}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from lines


@pytest.mark.parametrize("name", ["topiocqa_pages", "cqr_default", "qrecc_answers"])
def test_every_turn_and_judgement_arrives(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    records = []
    for split in ("train", "dev"):
        taken = list(islice(real_lines(name, split), NUM_TURNS))
        (source / f"{split}.jsonl").write_text("".join(taken), encoding="utf-8")
        records += map(json.loads, taken)
    wanted = {gold for r in records for gold in r.get("page_passages") or r["gold"]}
    with gzip.open(source / "corpus.jsonl.gz", "wt", encoding="utf-8", compresslevel=1) as out:
        for number, line in enumerate(real_lines(name, "corpus")):
            if number < NUM_OTHERS or json.loads(line)["id"] in wanted:
                out.write(line)
    counts = convert_pooled(source, tmp_path / "out", name=name)
    dataset = load_dataset(tmp_path / "out")
    assert dataset.name == name
    assert counts["num_turns"] == len(records) == len(dataset.turns())
    doc_ids = {p.doc_id for p in iter_passages(dataset.corpus_path)}
    assert len(doc_ids) == counts["num_passages"]
    for turn, record in zip(dataset.turns(), records, strict=True):
        assert turn.question == record["question"]
        golds = record.get("page_passages") or record["gold"]
        assert len(dataset.qrels[turn.qid]) == len(set(golds))
        assert set(dataset.qrels[turn.qid]) <= doc_ids
        spoken = [m["text"] for m in record["history"] if m["text"]]
        assert " ".join(m.text for m in turn.history if m.text) == " ".join(spoken)


def test_single_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a single question, not a turn of a conversation"):
        convert_pooled(REAL / "wiki_mini", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
