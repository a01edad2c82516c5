"""Conversations of one's own: what a new user writes, and what is wrong in it by file and line."""

import json
from pathlib import Path

import pytest

from convsearch.data.dataset import load_dataset
from convsearch.data.own import convert_own
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.passages import iter_passages


def talk(conv: str, **changes: object) -> dict[str, object]:
    turns = [
        {"question": "Who built it?", "answer": "Ada.", "relevant": ["d1"]},
        {"question": "Thanks!", "answer": "Welcome."},
        {"question": "And when?", "answer": None, "relevant": ["d2", 3]},
    ]
    return {"id": conv, "turns": turns, **changes}


PASSAGES = [
    {"id": "d1", "title": "T", "text": "x"},
    {"id": "d2", "text": "y"},
    {"id": 3, "text": ""},
]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def convert(folder: Path, talks: list[dict[str, object]], **changes: object) -> dict[str, int]:
    talk_path = write(folder / "talks.jsonl", talks)
    passages = write(folder / "passages.jsonl", PASSAGES)
    return convert_own(talk_path, passages, folder / "out", **changes)  # pyright: ignore


def test_turns_with_a_relevant_passage_and_all_that_was_said(tmp_path: Path) -> None:
    counts = convert(tmp_path, [talk("a", split="test"), talk("b", split="train")])
    data = load_dataset(tmp_path / "out")
    assert [t.qid for t in data.all_turns] == ["a_1", "a_3", "b_1", "b_3"]
    assert [m.text for m in data.all_turns[1].history] == [
        "Who built it?", "Ada.", "Thanks!", "Welcome.",
    ]  # fmt: skip
    assert data.qrels["a_3"] == {"d2": 1, "3": 1}
    assert counts["turns_without_gold"] == 2
    assert (counts["num_turns_test"], counts["num_turns_train"]) == (2, 2)


def test_splits_are_drawn_by_conversation_where_none_is_named(tmp_path: Path) -> None:
    talks = [talk(f"c{n}") for n in range(10)]
    convert(tmp_path, talks)
    data = load_dataset(tmp_path / "out")
    by_split = {s: {t.conv_id for t in data.turns(s)} for s in ("train", "dev", "test")}
    assert {s: len(convs) for s, convs in by_split.items()} == {"train": 7, "dev": 1, "test": 2}
    convert(tmp_path, talks[::-1], fresh=True)
    again = load_dataset(tmp_path / "out")
    assert {t.conv_id for t in again.turns("test")} == by_split["test"], "order does not matter"


def test_passages_may_be_a_table(tmp_path: Path) -> None:
    table = tmp_path / "p.tsv"
    table.write_text('d1\tx "quoted"\tT\nd2\ty\n3\tz\n')
    talks = write(tmp_path / "talks.jsonl", [talk("a", split="test")])
    convert_own(talks, table, tmp_path / "out")
    passages = list(iter_passages(tmp_path / "out" / "corpus.jsonl"))
    assert [(p.doc_id, p.title, p.text) for p in passages] == [
        ("d1", "T", 'x "quoted"'), ("d2", "", "y"), ("3", "", "z"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("talks", "told"),
    [
        ([talk("a"), talk("a")], r"talks\.jsonl:2: conversation 'a' occurs twice"),
        ([talk("a b")], "without white space"),
        ([{"id": "a"}], r'talks\.jsonl:1: field "turns" is missing'),
        ([talk("a", turns=[{"answer": "x"}])], r'turn 1: field "question" is missing'),
        ([talk("a", turns=[{"question": " "}])], r'turn 1: field "question" is empty'),
        ([talk("a", turns=[{"question": "x?"}])], "no turn names a relevant passage"),
        ([talk("a", turns=[{"question": "x?", "relevant": ["d 1"]}])], "must hold passage ids"),
        ([talk("a", turns=[{"question": "x?", "relevant": [True]}])], "passage ids, found True"),
        ([talk("a", turns=[{"question": "x?", "relevant": ["d9"]}])], "'d9' of turn 'a_1'"),
        ([talk("a", split="test"), talk("b")], "must be train, dev or test in every conversation"),
        ([talk("a", split="best")], "found 'best'"),
        ([], "no conversations"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, talks: list[dict[str, object]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        convert(tmp_path, talks)
    assert not (tmp_path / "out").exists()


def test_wrong_passages_and_settings_are_named(tmp_path: Path) -> None:
    talks = write(tmp_path / "talks.jsonl", [talk("a")])
    twice = write(tmp_path / "p.jsonl", [PASSAGES[0], PASSAGES[0]])
    with pytest.raises(DataError, match=r"p\.jsonl:2: doc_id 'd1' occurs twice, first in line 1"):
        convert_own(talks, twice, tmp_path / "out")
    with pytest.raises(DataError, match="holds no passage"):
        convert_own(talks, write(tmp_path / "none.jsonl", []), tmp_path / "out")
    with pytest.raises(MissingFileError, match="no such file"):
        convert_own(talks, tmp_path / "nowhere.jsonl", tmp_path / "out")
    with pytest.raises(ConfigError, match="at most 1"):
        convert_own(talks, twice, tmp_path / "out", dev_share=0.7, test_share=0.7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["none.jsonl", "p.jsonl", "talks.jsonl"]
