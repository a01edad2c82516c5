"""QReCC: the order of the collection, raw ids, histories, and human rewrites kept apart."""

import json
import zipfile
from pathlib import Path

import pytest
from raw_files import (
    QRECC_COUNTS,
    QRECC_MEMBERS,
    SECRET,
    kept,
    qrecc_turn,
    source,
    write_passages_zip,
    write_qrecc,
)

from convsearch.data.dataset import load_dataset
from convsearch.data.qrecc import convert_qrecc, published_size_note
from convsearch.data.qrecc_passages import read_passages_zip
from convsearch.errors import DataError
from convsearch.files import read_rewrites
from convsearch.passages import iter_passages

EXPECTED = tuple(QRECC_COUNTS.items())
TRAIN = "scai-qrecc21-training-turns.json"


def test_wayback_backfill_comes_last_and_not_among_wayback(tmp_path: Path) -> None:
    write_passages_zip(tmp_path / "p.zip")
    read = list(read_passages_zip(tmp_path / "p.zip"))
    assert [raw.raw_id for raw in read] == [
        "c1_p0", "same", "same", "w1_p0", "w1_p1", "w2_p0", "w3_p0",
    ]  # fmt: skip
    assert [raw.passage.doc_id for raw in read] == [str(n) for n in range(7)]


def test_raw_files_become_a_data_set(tmp_path: Path) -> None:
    raw = write_qrecc(tmp_path / "raw")
    counts = convert_qrecc(source(raw), tmp_path / "out", kept(expected=EXPECTED))
    data = load_dataset(tmp_path / "out")
    assert data.qrels["QReCC-Train_1_3"] == {"1": 1, "2": 1, "3": 1}, "twins are both relevant"
    third = next(t for t in data.all_turns if t.qid == "QReCC-Train_1_3")
    assert [m.text for m in third.history] == [
        "question 1 1?", "answer 1 1", "question 1 2?", "UNANSWERABLE",
    ]  # fmt: skip
    assert [t.qid for t in data.turns("test")] == ["QReCC-Test_1_1", "QReCC-Test_1_2"]
    assert counts["turns_without_gold"] == 2
    assert counts["repeated_gold_ids"] == 1
    assert counts["empty_answers"] == 1
    assert counts["num_blank_passages"] == 1
    assert len(list(iter_passages(data.corpus_path))) == 7
    for name in ("turns.jsonl", "corpus.jsonl", "qrels.trec", "run.json"):
        assert SECRET not in (tmp_path / "out" / name).read_text()
    golds = (tmp_path / "out" / "gold_ids.tsv").read_text().splitlines()
    assert "1\tsame" in golds
    assert "2\tsame" in golds


def test_human_rewrites_are_a_baseline_of_their_own(tmp_path: Path) -> None:
    raw = write_qrecc(tmp_path / "raw")
    settings = kept(expected=EXPECTED, validation_share=0.5)
    counts = convert_qrecc(source(raw), tmp_path / "out", settings)
    data = load_dataset(tmp_path / "out")
    test = read_rewrites(tmp_path / "out" / "human_rewrites.jsonl")
    assert [r.qid for r in test] == [t.qid for t in data.turns("test")]
    assert [(r.status, r.text) for r in test] == [("ok", f"human {SECRET} 1 1"), ("failed", None)]
    dev = read_rewrites(tmp_path / "out" / "human_rewrites.dev.jsonl")
    assert {r.qid for r in dev} == {t.qid for t in data.turns("dev")}
    assert counts["num_human_rewrites"] == 1 + len(dev)


def test_field_names_of_the_first_release(tmp_path: Path) -> None:
    raw = write_qrecc(tmp_path / "raw")
    path = raw / TRAIN
    records = json.loads(path.read_text())
    for record in records:
        record["Answer"], record["Rewrite"] = (
            record.pop("Truth_answer"),
            record.pop("Truth_rewrite"),
        )
    path.write_text(json.dumps(records))
    convert_qrecc(source(raw), tmp_path / "out", kept(expected=EXPECTED))
    turns = load_dataset(tmp_path / "out").all_turns
    assert any(m.text == "answer 1 1" for t in turns for m in t.history)


@pytest.mark.parametrize(
    ("size", "told"),
    [(8124, "8,124 (table 7"), (8209, "8,209 (table 10"), (8000, "8,000 (neither of")],
)
def test_says_which_published_size_the_qrels_give(size: int, told: str) -> None:
    assert told in published_size_note({"num_raw_test_turns": size})


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ([qrecc_turn(1, 1, "c1_p0"), qrecc_turn(1, 3, "c1_p0")], "turn 3 of QReCC-Train_1 follows"),
        (
            [qrecc_turn(1, 1, "c1_p0"), qrecc_turn(2, 1, "c1_p0"), qrecc_turn(1, 2, "c1_p0")],
            "do not stand together",
        ),
        ([qrecc_turn(1, 1)], "no turn with a relevant passage"),
        ([qrecc_turn(1, 1, "c1_p0", Question=" ")], '"Question" is empty'),
        ([qrecc_turn(1, 1, "nowhere_p0")], "'nowhere_p0' of turn 'QReCC-Train_1_1'"),
    ],
)
def test_wrong_turns_are_named(tmp_path: Path, turns: list[object], told: str) -> None:
    raw = write_qrecc(tmp_path / "raw")
    (raw / TRAIN).write_text(json.dumps(turns))
    with pytest.raises(DataError, match=told):
        convert_qrecc(source(raw), tmp_path / "out", kept(allow_count_mismatch=True))
    assert not (tmp_path / "out").exists()


def test_wrong_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    some = {name: rows for name, rows in QRECC_MEMBERS.items() if "backfill" not in name}
    write_passages_zip(path, some)
    with pytest.raises(DataError, match=r"no \.jsonl files in the folder wayback-backfill"):
        list(read_passages_zip(path))
    write_passages_zip(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged archive"):
        list(read_passages_zip(path))
    with zipfile.ZipFile(path, "w") as archive:
        for folder in ("commoncrawl", "wayback", "wayback-backfill"):
            archive.writestr(f"x/{folder}/1.jsonl", '{"id": "a", "contents": "x"}\n{"id": 1\n')
    with pytest.raises(DataError, match=r"commoncrawl/1\.jsonl:2: not valid JSON"):
        list(read_passages_zip(path))
