"""MTRAG from a checkout of its repository: turns, splits, passages, and what is wrong with it."""

import zipfile
from pathlib import Path

import pytest
from raw_files import SECRET, kept
from raw_mtrag import (
    COUNTS,
    TASKS,
    mtrag_passages,
    opening,
    passage_id,
    task,
    write_mtrag,
    write_mtrag_corpus,
)

from convsearch.data.dataset import load_dataset
from convsearch.data.mtrag import MtragSettings, convert_mtrag
from convsearch.data.mtrag_files import DOMAINS
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import read_rewrites
from convsearch.passages import iter_passages

MADE = kept(expected=tuple(COUNTS.items()), validation_share=0.2)
LOOSE = kept(allow_count_mismatch=True, validation_share=0.2)
TASKS_FILE = Path("mtrag-human/generation_tasks/reference.jsonl")


def convert(raw: Path, out: Path, changes: object = MADE, **settings: object) -> dict[str, int]:
    chosen = MtragSettings(**settings)  # pyright: ignore[reportArgumentType]
    return convert_mtrag(raw, out, changes, chosen)  # pyright: ignore[reportArgumentType]


def ids(out: Path) -> list[str]:
    return [passage.doc_id for passage in iter_passages(out / "corpus.jsonl")]


def test_judged_tasks_become_turns_and_all_passages_the_corpus(tmp_path: Path) -> None:
    raw, out = write_mtrag(tmp_path / "raw"), tmp_path / "out"
    counts = convert(raw, out)
    data = load_dataset(out)
    assert ": NaN" in (raw / TASKS_FILE).read_text(), "labels as they are published"
    assert data.name == "mtrag"
    turns = {turn.qid: turn for split in ("train", "dev", "test") for turn in data.turns(split)}
    turn = turns["fiqa1<::>3"]
    assert (turn.conv_id, turn.turn, turn.question) == ("fiqa1", 3, "and why 1?")
    assert [message.role for message in turn.history] == ["user", "agent"] * 2
    assert turn.history[0].text == opening("fiqa", 1), "also of a task that is not judged"
    assert data.qrels[turn.qid] == {passage_id("fiqa", 1): 1, passage_id("fiqa", 6): 1}
    assert turns["vfiqa<::>2"].turn == 2, "MTRAG-UN writes numbers as texts"
    assert ids(out) == [str(each["_id"]) for name in DOMAINS for each in mtrag_passages(name)]
    assert next(iter_passages(out / "corpus.jsonl")).title == "Page 0"
    assert (counts["num_mtrag_tasks"], counts["num_mtragun_tasks"]) == (TASKS, 12)
    assert counts["num_turns"] == 48 - counts["turns_opening_as_held_out"] == len(turns)
    switches = data.topic_switches()
    assert switches["clapnq1<::>3"] is False
    assert switches["clapnq1<::>2"] is None, "the turn before is not judged"
    assert switches["fiqa1<::>3"] is None, "no titles"
    for name in ("turns.jsonl", "qrels.trec", "turn_info.jsonl", "run.json"):
        assert SECRET not in (out / name).read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw"]


def test_splits_are_whole_conversations_and_mtragun_is_for_training(tmp_path: Path) -> None:
    raw = write_mtrag(tmp_path / "raw")
    counts = convert(raw, tmp_path / "out")
    data = load_dataset(tmp_path / "out")
    convs = {
        split: {turn.conv_id for turn in data.turns(split)} for split in ("train", "dev", "test")
    }
    assert not convs["train"] & convs["dev"]
    assert not (convs["train"] | convs["dev"]) & convs["test"]
    assert (len(convs["test"]), len(convs["dev"])) == (8, 2), ".4 of 20, .2 of the other 12"
    held = convs["test"] | convs["dev"]
    begins_as_held = {f"u{domain}" for domain in DOMAINS if f"{domain}0" in held}
    taken = {conv for conv in convs["train"] if conv[0] in "uv"}
    assert taken == {f"{name}{domain}" for domain in DOMAINS for name in "uv"} - begins_as_held
    assert counts["turns_opening_as_held_out"] == len(begins_as_held) > 0

    whole = convert(raw, tmp_path / "whole", test_share=1)
    assert whole["num_conversations_test"] == 20
    assert "num_turns_dev" not in whole
    assert whole["turns_opening_as_held_out"] == whole["num_turns_train"] == len(DOMAINS)


def test_human_rewrites_of_held_out_turns_stand_apart(tmp_path: Path) -> None:
    raw, out = write_mtrag(tmp_path / "raw"), tmp_path / "out"
    counts = convert(raw, out)
    data = load_dataset(out)
    for split, name in (("test", "human_rewrites.jsonl"), ("dev", "human_rewrites.dev.jsonl")):
        texts = {each.qid: each.text for each in read_rewrites(out / name)}
        assert texts.keys() == {turn.qid for turn in data.turns(split)}
        assert all(str(text).startswith("How is ") for text in texts.values())
    assert counts["human_rewrites"] == counts["num_turns_test"] + counts["num_turns_dev"]


def test_a_sample_holds_the_relevant_passages_and_grows_with_the_seed(tmp_path: Path) -> None:
    raw = write_mtrag(tmp_path / "raw")
    drawn: dict[tuple[int, int], set[str]] = {}
    for others, seed in ((0, 0), (10, 0), (20, 0), (10, 1)):
        settings = kept(expected=MADE.expected, validation_share=0.2, seed=seed)
        out = tmp_path / f"{others}-{seed}"
        counts = convert(raw, out, settings, others=others)
        data = load_dataset(out)
        assert data.name == "mtrag_sample"
        relevant = {doc_id for golds in data.qrels.values() for doc_id in golds}
        drawn[others, seed] = set(ids(out)) - relevant
        assert counts["num_passages"] == len(relevant) + others
    assert drawn[10, 0] < drawn[20, 0]
    assert drawn[10, 0] != drawn[10, 1]


def test_some_domains_and_unpacked_corpora(tmp_path: Path) -> None:
    raw, out = write_mtrag(tmp_path / "raw"), tmp_path / "out"
    path = raw / "corpora" / "passage_level" / "govt.jsonl.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extract("govt.jsonl", path.parent)
    path.write_bytes(b"not looked at")
    for domain in ("fiqa", "cloud"):
        (raw / "corpora" / "passage_level" / f"{domain}.jsonl.zip").unlink()
    counts = convert(raw, out, LOOSE, domains=("govt", "clapnq", "govt"))
    data = load_dataset(out)
    assert data.name == "mtrag_clapnq_govt"
    assert counts["num_mtrag_turns"] == 20
    assert counts["num_passages"] == 60
    assert {qid.lstrip("uv")[0] for qid in data.qrels} == {"c", "g"}


def test_the_same_is_kept_and_another_draw_refused(tmp_path: Path) -> None:
    raw, out = write_mtrag(tmp_path / "raw"), tmp_path / "out"
    counts = convert(raw, out)
    before = (out / "corpus.jsonl").stat().st_mtime_ns
    assert convert(raw, out, domains=DOMAINS[::-1]) == counts
    assert (out / "corpus.jsonl").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"test_share \(there 0\.4, now 0\.5\)"):
        convert(raw, out, test_share=0.5)
    write_mtrag_corpus(raw, "fiqa", mtrag_passages("fiqa")[::-1])
    with pytest.raises(ConfigError, match=r"raw_files\.corpora/passage_level/fiqa\.jsonl\.zip"):
        convert(raw, out)
    assert convert_mtrag(raw, out, MADE, MtragSettings(), fresh=True) == counts


def test_counts_must_be_the_published_ones(tmp_path: Path) -> None:
    raw = write_mtrag(tmp_path / "raw")
    with pytest.raises(DataError, match="num_mtrag_tasks is 60 and should be 842") as told:
        convert(raw, tmp_path / "out", kept())
    assert "num_mtrag_turns is 40 and should be 777" in str(told.value)
    assert "--verify" not in str(told.value), "there is no such flag here"
    early = tuple(item for item in COUNTS.items() if item[0] != "num_passages_read")
    with pytest.raises(DataError, match="num_passages_read is 120 and should be 366,459"):
        convert(raw, tmp_path / "out", kept(expected=early))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "absent",
    [
        TASKS_FILE,
        Path("mtrag-human/retrieval_tasks/cloud/cloud_rewrite.jsonl"),
        Path("mtragun-human/retrieval_tasks/qrels/govt.tsv"),
        Path("corpora/passage_level/fiqa.jsonl.zip"),
    ],
)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, absent: Path) -> None:
    raw = write_mtrag(tmp_path / "raw")
    (raw / absent).unlink()
    with pytest.raises(MissingFileError, match=rf"{absent.name}: no such file; make a whole"):
        convert(raw, tmp_path / "out")
    with pytest.raises(MissingFileError, match="no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (task("fiqa0", 1, ["again?"]), r":61: task 'fiqa0<::>1' occurs twice"),
        (task("ufiqa", 2, ["a?", "b?"]), r"task 'ufiqa<::>2' is also in .*mtrag-human"),
        (task("x", 1, ["a?"], input=[]), r':61: field "input" must end with a question of'),
        (task("x", 1, ["a?"], input=[{"speaker": "agent", "text": "a"}]), r":61: field \"input\""),
        (task("x", 1, ["a?"], input=[7]), r':61: field "input" must end'),
        (task("x", "first", ["a?"]), r':61: field "turn" must be int'),
        (task("x", 2, ["a?", "b?"], input=[7, {"speaker": "user", "text": "b?"}]), r"history\[0\]"),
        (task("x", 1, [" "]), r':61: field "question" is empty'),
        ("{", r":61: not valid JSON"),
    ],
)
def test_a_wrong_task_is_named(tmp_path: Path, line: str, told: str) -> None:
    raw = write_mtrag(tmp_path / "raw")
    with (raw / TASKS_FILE).open("a") as tasks:
        tasks.write(line)
    with pytest.raises(DataError, match=told):
        convert(raw, tmp_path / "out", LOOSE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    raw = write_mtrag(tmp_path / "raw")
    qrels = raw / "mtrag-human/retrieval_tasks/fiqa/qrels/dev.tsv"
    rows = qrels.read_text()
    qrels.write_text(f"{rows}fiqa9<::>1\t{passage_id('fiqa', 1)}\t1\n")
    with pytest.raises(DataError, match=r"'fiqa9<::>1' is judged, but not there; make a whole"):
        convert(raw, tmp_path / "out", LOOSE)
    qrels.write_text(f"{rows}fiqa1<::>3\tnowhere\t1\n")
    with pytest.raises(DataError, match=r"'nowhere' of turn 'fiqa1<::>3'"):
        convert(raw, tmp_path / "out", LOOSE)
    qrels.write_text(f"{rows}fiqa1<::>3\tnowhere\tmuch\n")
    with pytest.raises(DataError, match=r"dev\.tsv:\d+: score must be a number, found 'much'"):
        convert(raw, tmp_path / "out", LOOSE)
    qrels.write_text(f"{rows}fiqa1<::>1\t{passage_id('fiqa', 1)}\t0\n")
    assert convert(raw, tmp_path / "out")["num_mtrag_turns"] == 40, "0 is not relevant"


def test_a_wrong_corpus_is_named(tmp_path: Path) -> None:
    raw, out = write_mtrag(tmp_path / "raw"), tmp_path / "out"
    passages = mtrag_passages("cloud")
    for wrong, told in (
        ([*passages, passages[3]], "'cloud_03-0-3' occurs twice"),
        ([*passages, {"_id": "a b", "text": "x"}], r"cloud\.jsonl:31: field \"_id\" must be"),
        ([*passages, {"_id": "x"}], r"cloud\.jsonl:31: field \"text\" is missing"),
    ):
        write_mtrag_corpus(raw, "cloud", wrong)
        with pytest.raises(DataError, match=told):
            convert(raw, out, LOOSE)
    path = write_mtrag_corpus(raw, "cloud", passages)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cloud\.jsonl\.zip: damaged archive"):
        convert(raw, out, LOOSE)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.jsonl", "{}")
    with pytest.raises(DataError, match=r"cloud\.jsonl\.zip: holds no cloud\.jsonl"):
        convert(raw, out, LOOSE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"domains": ("clapnq", "telco")}, "--domain takes .*, got telco"),
        ({"domains": ()}, "got none"),
        ({"others": -1}, "--others must be 0 or more"),
        ({"test_share": 0}, "--test-share must be above 0"),
        ({"test_share": 1.1}, "at most 1"),
    ],
)
def test_settings_are_checked(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        MtragSettings(**wrong)  # pyright: ignore[reportArgumentType]
