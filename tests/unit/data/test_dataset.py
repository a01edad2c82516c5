"""Data set folders: what loads, and the sentence for what does not."""

import gzip
import json
from pathlib import Path

import pytest

from convsearch.data.dataset import load_dataset
from convsearch.errors import DataError, MissingFileError
from convsearch.files import write_qrels, write_turns
from convsearch.passages import write_passages
from convsearch.types import Message, Passage, Turn


def make_folder(folder: Path) -> Path:
    exchange = (Message(role="user", text="who?"), Message(role="agent", text="Ada."))
    turns = [
        Turn(qid="a_1", conv_id="a", turn=1, split="train", question="who?"),
        Turn(qid="a_2", conv_id="a", turn=2, split="train", question="when?", history=exchange),
        Turn(qid="b_1", conv_id="b", turn=1, split="dev", question="where?"),
    ]
    write_turns(folder / "turns.jsonl", turns)
    write_passages(folder / "corpus.jsonl", [Passage(doc_id="d1", title="T", text="x")])
    write_qrels(folder / "qrels.trec", {t.qid: {"d1": 1} for t in turns})
    return folder


def test_loads_turns_by_split(tmp_path: Path) -> None:
    dataset = load_dataset(make_folder(tmp_path / "toy"))
    assert dataset.name == "toy"
    assert [t.qid for t in dataset.turns("train")] == ["a_1", "a_2"]
    assert len(dataset.turns()) == 3
    assert dataset.qrels["b_1"] == {"d1": 1}
    assert dataset.corpus_path.name == "corpus.jsonl"


def test_name_comes_from_the_passport(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "toy")
    (folder / "run.json").write_text(json.dumps({"settings": {"name": "other"}}))
    assert load_dataset(folder).name == "other"
    (folder / "run.json").write_text("[]")
    with pytest.raises(DataError, match=r"run\.json: expected a JSON object"):
        load_dataset(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json:1: not valid JSON"):
        load_dataset(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(DataError, match=r"run\.json: not the passport of a data set"):
        load_dataset(folder)


@pytest.mark.parametrize("name", ["turns.jsonl", "corpus.jsonl", "qrels.trec"])
def test_files_may_be_compressed(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "toy")
    plain = folder / name
    (folder / f"{name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(DataError, match=f"both {name} and {name}.gz"):
        load_dataset(folder)
    plain.unlink()
    assert len(load_dataset(folder).all_turns) == 3


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere: no such folder; make a data set with"):
        load_dataset(tmp_path / "nowhere")


def test_all_missing_files_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "toy")
    (folder / "corpus.jsonl").unlink()
    (folder / "qrels.trec").unlink()
    with pytest.raises(MissingFileError, match=r"corpus\.jsonl and qrels\.trec missing"):
        load_dataset(folder)


@pytest.mark.parametrize("line", ["", "a_2 0 d1 0\n"])
def test_turns_without_a_relevant_passage_are_named(tmp_path: Path, line: str) -> None:
    folder = make_folder(tmp_path / "toy")
    (folder / "qrels.trec").write_text(f"a_1 0 d1 1\nb_1 0 d1 1\n{line}")
    with pytest.raises(DataError, match=r"no relevant passage for 1 of 3 turns \(a_2\)"):
        load_dataset(folder)


def test_an_unknown_split_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    dataset = load_dataset(make_folder(tmp_path / "toy"))
    with pytest.raises(DataError, match="no turns of split 'test'; splits here: dev, train"):
        dataset.turns("test")
