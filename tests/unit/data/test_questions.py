"""Question folders and the adapter that makes them."""

import json
from pathlib import Path

import pytest

from convsearch.data.questions import (
    convert_questions,
    load_questions,
    read_questions,
    write_questions,
)
from convsearch.errors import DataError, MissingFileError
from convsearch.types import Question

RECORD = {
    "id": "h1", "dataset": "hotpotqa", "split": "dev", "question": "Who?", "answers": ["Ada"],
    "type": "bridge", "gold": ["w1", "w2"],
}  # fmt: skip
CORPUS = [{"id": f"w{i}", "title": f"T{i}", "text": f"text {i}", "sources": ["x"]} for i in (1, 2)]


def lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def source(folder: Path, *records: dict, corpus: list[dict] = CORPUS) -> Path:
    folder.mkdir()
    lines(folder / "corpus.jsonl", corpus)
    lines(folder / "dev.jsonl", list(records) or [RECORD])
    return folder


def test_a_folder_is_converted_whole(tmp_path: Path):
    where = source(tmp_path / "s", RECORD, {**RECORD, "id": "h2", "gold": [], "answers": []})
    lines(where / "train.jsonl", [{**RECORD, "id": "h3", "split": "test"}])
    counts = convert_questions(where, tmp_path / "q")
    assert counts["num_questions"] == 3
    assert (counts["without_answers"], counts["without_gold"]) == (1, 1)
    made = load_questions(tmp_path / "q")
    assert [q.qid for q in made.questions("dev")] == ["h1", "h2"]
    assert [q.qid for q in made.questions("train", "hotpotqa")] == ["h3"]
    assert (made.golds("h1"), made.golds("h2")) == (["w1", "w2"], [])
    assert json.loads((tmp_path / "q" / "run.json").read_text())["stage"] == "data qa"
    with pytest.raises(DataError, match=r"no questions of nq/any; here are hotpotqa/dev"):
        made.questions(dataset="nq")


def test_answers_that_lost_their_quotes_are_mended_and_counted(tmp_path: Path):
    listed = "[Olivia O'Brien, 'Garrett Nash', \"B's\"]"
    where = source(tmp_path / "s", {**RECORD, "answers": listed})
    assert convert_questions(where, tmp_path / "q")["mended_answers"] == 1
    [question] = load_questions(tmp_path / "q").questions()
    assert question.answers == ("Olivia O'Brien", "Garrett Nash", "B's")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": " "}, "dev.jsonl:1: field \"question\" is empty"),
        ({"gold": ["w9"]}, "dev.jsonl:1: gold passage 'w9' is not in corpus.jsonl"),
        ({"gold": "w1"}, "field \"gold\" must be list"),
        ({"answers": [3]}, "field \"answers\" must hold texts"),
        ({"answers": [""]}, "field \"answers\" must hold texts"),
        ({"id": "a b"}, "without white space"),
        ({"type": None}, "field \"type\" must be str"),
    ],
)  # fmt: skip
def test_bad_records_are_sentences_and_nothing_is_written(
    change: dict, reason: str, tmp_path: Path
):
    with pytest.raises(DataError, match=reason):
        convert_questions(source(tmp_path / "s", {**RECORD, **change}), tmp_path / "q")
    assert not (tmp_path / "q").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "s"]


def test_repeats_and_missing_parts_are_sentences(tmp_path: Path):
    with pytest.raises(DataError, match=r"dev.jsonl:2: id 'h1' occurs twice"):
        convert_questions(source(tmp_path / "a", RECORD, RECORD), tmp_path / "q")
    with pytest.raises(DataError, match=r"corpus.jsonl:3: doc_id 'w1' occurs twice, first in"):
        convert_questions(
            source(tmp_path / "b", RECORD, corpus=[*CORPUS, CORPUS[0]]), tmp_path / "q"
        )
    with pytest.raises(MissingFileError, match="no such folder"):
        convert_questions(tmp_path / "none", tmp_path / "q")
    (tmp_path / "a" / "corpus.jsonl").unlink()
    with pytest.raises(MissingFileError, match=r"corpus.jsonl missing"):
        convert_questions(tmp_path / "a", tmp_path / "q")
    with pytest.raises(DataError, match="source itself"):
        convert_questions(tmp_path / "b", tmp_path / "b")


def test_questions_survive_their_file(tmp_path: Path):
    made = [
        Question(
            qid="q1", dataset="d", question="Zoë?", answers=("a", "b"), type="", split="dev"
        )
    ]  # fmt: skip
    path = tmp_path / "questions.jsonl.gz"
    assert write_questions(path, made) == 1
    assert read_questions(path) == made


def test_a_folder_with_other_judgements_is_refused(tmp_path: Path):
    convert_questions(source(tmp_path / "s"), tmp_path / "q")
    (tmp_path / "q" / "qrels.trec").write_text("other 0 w1 1\n")
    with pytest.raises(DataError, match="judges qid 'other'"):
        load_questions(tmp_path / "q")
    (tmp_path / "q" / "questions.jsonl").unlink()
    with pytest.raises(MissingFileError, match=r"questions.jsonl missing.*convsearch data qa"):
        load_questions(tmp_path / "q")
