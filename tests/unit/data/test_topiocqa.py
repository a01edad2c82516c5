"""TopiOCQA: every turn of the raw files, its relevant passages, and nothing of the answers."""

import json
from pathlib import Path

import pytest
from raw_files import SECRET, TOPIOCQA_COUNTS, kept, source, topiocqa_golds, write_topiocqa

from convsearch.data.dataset import load_dataset
from convsearch.data.topiocqa import PUBLISHED, convert_topiocqa
from convsearch.errors import DataError, MissingFileError
from convsearch.files import read_jsonl
from convsearch.passages import iter_passages

EXPECTED = tuple(TOPIOCQA_COUNTS.items())


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != "run.json"}


def test_raw_files_become_a_data_set(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    settings = kept(expected=EXPECTED, validation_share=0.3)
    counts = convert_topiocqa(source(raw), tmp_path / "out", settings)
    data = load_dataset(tmp_path / "out")
    assert data.name == "topiocqa"
    assert [t.qid for t in data.turns("test")] == ["topiocqa-dev_1_1", "topiocqa-dev_1_3"]
    assert data.qrels["topiocqa-train_1_2"] == {"2": 1, "1": 1}
    assert data.qrels["topiocqa-train_2_1"] == {"3": 1}
    second = next(t for t in data.all_turns if t.qid == "topiocqa-train_1_2")
    assert [m.text for m in second.history] == ["question 1 1?", "answer one"]
    odd = next(t for t in data.all_turns if t.qid == "topiocqa-train_3_1")
    assert [(m.role, m.text) for m in odd.history] == [("user", "odd one out"), ("agent", "")]
    assert counts["turns_without_gold"] == 1
    assert counts["added_agent_messages"] == 1
    assert counts["num_passages"] == 5
    assert counts["num_blank_passages"] == 1
    assert next(p.title for p in iter_passages(data.corpus_path)) == "Mill Early years"
    for name in ("turns.jsonl", "qrels.trec", "turn_info.jsonl", "run.json"):
        assert SECRET not in (tmp_path / "out" / name).read_text()
    passport = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(passport["settings"]["raw_files"]) == 5
    assert all(len(digest) == 64 for digest in passport["settings"]["raw_files"].values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw"]


def test_whole_conversations_are_held_out_by_the_seed(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    held = {}
    for seed in range(5):
        settings = kept(expected=EXPECTED, validation_share=0.4, seed=seed)
        convert_topiocqa(source(raw), tmp_path / f"out{seed}", settings)
        data = load_dataset(tmp_path / f"out{seed}")
        held[seed] = {t.conv_id for t in data.turns("dev")}
        assert len(held[seed]) == 1
        assert not held[seed] & {t.conv_id for t in data.turns("train")}
        assert len(data.turns("test")) == 2
    assert len({frozenset(each) for each in held.values()}) > 1
    convert_topiocqa(source(raw), tmp_path / "all", kept(expected=EXPECTED, validation_share=0.0))
    assert len(load_dataset(tmp_path / "all").turns("train")) == 5


def test_first_gold_only_as_the_original(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    convert_topiocqa(source(raw), tmp_path / "out", kept(expected=EXPECTED), gold="first")
    assert load_dataset(tmp_path / "out").qrels["topiocqa-train_1_2"] == {"2": 1}


def test_topic_switches_are_told_apart_from_turns(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    convert_topiocqa(source(raw), tmp_path / "out", kept(expected=EXPECTED))
    info = {r["qid"]: r["topic_switch"] for _, r in read_jsonl(tmp_path / "out/turn_info.jsonl")}
    assert [info[f"topiocqa-train_1_{n}"] for n in (1, 2, 3)] == [None, False, True]
    assert info["topiocqa-dev_1_3"] is True, "the turn before has no gold, but a topic"


def test_counts_must_be_the_published_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    with pytest.raises(DataError, match=r"num_raw_train_turns is 5 and should be 45,450"):
        convert_topiocqa(source(raw), tmp_path / "out", kept())
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists(), "told before the corpus is read"
    counts = convert_topiocqa(source(raw), tmp_path / "out", kept(allow_count_mismatch=True))
    assert counts["count_mismatches"] == len(PUBLISHED)
    assert "should be 25,700,592" in caplog.text


def test_a_gold_passage_outside_the_corpus_is_an_error(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    path = raw / "retriever_all_history_dev.json"
    records = json.loads(path.read_text())
    records[0] = topiocqa_golds(1, 1, "99")
    path.write_text(json.dumps(records))
    with pytest.raises(DataError, match=r"'99' of turn 'topiocqa-dev_1_1'"):
        convert_topiocqa(source(raw), tmp_path / "out", kept(expected=EXPECTED))
    assert not (tmp_path / "out").exists()


def test_a_passage_id_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    segments = raw / "full_wiki_segments.tsv"
    lines = segments.read_text().splitlines(keepends=True)
    segments.write_text("".join([*lines, lines[2]]))
    twice = lines[2].split("\t")[0]
    sentence = rf"segments\.tsv:{len(lines) + 1}: doc_id '{twice}' occurs twice, first in line 3"
    with pytest.raises(DataError, match=sentence):
        convert_topiocqa(source(raw), tmp_path / "out", kept(expected=EXPECTED))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


def test_files_of_different_releases_do_not_pair(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    path = raw / "retriever_all_history_train.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    with pytest.raises(DataError, match="conversation 3, turn 1 has no entry"):
        convert_topiocqa(source(raw), tmp_path / "out", kept(expected=EXPECTED))


def test_a_part_of_the_corpus_keeps_all_golds(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    settings = kept(expected=EXPECTED, keep_one_in=1000)
    counts = convert_topiocqa(source(raw), tmp_path / "out", settings)
    data = load_dataset(tmp_path / "out")
    assert data.name == "topiocqa-1in1000"
    assert [p.doc_id for p in iter_passages(data.corpus_path)] == ["1", "2", "3", "5"]
    assert (counts["num_passages"], counts["num_passages_read"]) == (4, 5)


def test_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    for name in ("one", "two"):
        convert_topiocqa(source(raw), tmp_path / name, kept(expected=EXPECTED))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_missing_raw_files_are_named_with_address_and_place(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    (raw / "full_wiki_segments.tsv").unlink()
    with pytest.raises(MissingFileError) as told:
        convert_topiocqa(source(raw), tmp_path / "out", kept())
    assert "https://zenodo.org/records/6149599/files" in str(told.value)
    assert str(raw / "full_wiki_segments.tsv") in str(told.value)
    assert "topiocqa_train.json" not in str(told.value)
