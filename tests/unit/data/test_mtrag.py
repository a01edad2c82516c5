"""MTRAG from a checkout of its repository: tasks, judgements, corpora of several domains."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from raw_files import SECRET, kept

from convsearch.data.dataset import load_dataset
from convsearch.data.mtrag import MtragSettings, convert_mtrag
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import read_rewrites
from convsearch.passages import iter_passages

DOMAINS = ("cloud", "fiqa")
HEADER = ("query-id", "corpus-id", "score")
EXPECTED = (("num_mtrag_turns", 10), ("num_mtragun_turns", 2), ("num_passages_read", 14))
MADE = kept(expected=EXPECTED, validation_share=0.5)


def task(conv: str, turn: object, **changes: object) -> dict[str, object]:
    """The form of `reference.jsonl`: a conversation up to a question, and what must not be read."""
    number = int(str(turn))
    said = [
        {"speaker": speaker, "text": f"{speaker} {conv} {i}", "metadata": {"author": SECRET}}
        for i in range(1, number)
        for speaker in ("user", "agent")
    ]
    return {
        "conversation_id": conv,
        "task_id": f"{conv}<::>{turn}",
        "turn": turn,
        "contexts": [{"document_id": "x", "text": SECRET}],
        "input": [*said, {"speaker": "user", "text": f" question {conv} {number} "}],
        "targets": [{"speaker": "agent", "text": SECRET}],
        "answerability": float("nan"),
        **changes,
    }


def write_lines(path: Path, records: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_qrels(path: Path, rows: Sequence[tuple[str, str, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in (HEADER, *rows)))


def write_checkout(folder: Path) -> Path:
    """Five conversations of two judged turns and one that is not; two tasks of MTRAG-UN."""
    convs = {"cloud": ("c1", "c2", "c3"), "fiqa": ("f1", "f2")}
    human, un = folder / "mtrag-human", folder / "mtragun-human"
    tasks = [task(c, t) for each in convs.values() for c in each for t in (1, 2, 3)]
    write_lines(human / "generation_tasks" / "reference.jsonl", tasks)
    write_lines(un / "generation_tasks" / "reference.jsonl", [task("u1", "4"), task("u2", "2")])
    for domain, ids in convs.items():
        retrieval = human / "retrieval_tasks" / domain
        rows = [(f"{c}<::>{t}", f"{domain}-{t}", 1) for c in ids for t in (1, 2)]
        write_qrels(retrieval / "qrels" / "dev.tsv", [*rows, (f"{ids[0]}<::>1", f"{domain}-5", 1)])
        rewrites = [{"_id": f"{c}<::>2", "text": f"|user|: human {c}\n"} for c in ids]
        write_lines(retrieval / f"{domain}_rewrite.jsonl", rewrites)
        un_id = {"cloud": "u1<::>4", "fiqa": "u2<::>2"}[domain]
        write_qrels(un / "retrieval_tasks" / "qrels" / f"{domain}.tsv", [(un_id, f"{domain}-3", 1)])
        passages = [
            {"_id": f"{domain}-{n}", "text": f"Text {n}.", "title": f"Page {n}", "url": SECRET}
            for n in range(1, 8)
        ]
        lines = "".join(json.dumps(each) + "\n" for each in passages)
        packed = folder / "corpora" / "passage_level" / f"{domain}.jsonl.zip"
        packed.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"{domain}.jsonl", lines)
            archive.writestr(f"__MACOSX/._{domain}.jsonl", b"\0\5\x16\7")
    return folder


def convert(source: Path, out: Path, changes: object = MADE, **settings: object) -> dict[str, int]:
    chosen = MtragSettings(**{"domains": DOMAINS, **settings})  # pyright: ignore
    return convert_mtrag(source, out, changes, chosen)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return write_checkout(tmp_path / "mt-rag-benchmark")


def test_conversations_are_drawn_whole_and_mtrag_un_is_trained_on(
    tmp_path: Path, checkout: Path
) -> None:
    out = tmp_path / "out"
    counts = convert(checkout, out)
    data = load_dataset(out)
    assert data.name == "mtrag"
    convs = {
        split: {turn.conv_id for turn in data.turns(split)} for split in ("train", "dev", "test")
    }
    assert {"u1", "u2"} < convs["train"]
    assert [len(convs[split]) for split in ("test", "dev")] == [2, 2]
    assert not (convs["train"] & convs["dev"]) | (convs["train"] & convs["test"])
    assert counts["turns_without_gold"] == 5
    assert counts["num_turns"] == 12
    assert data.qrels["c1<::>1"] == {"cloud-1": 1, "cloud-5": 1}
    [turn] = [each for each in data.all_turns if each.qid == "u1<::>4"]
    assert (turn.turn, turn.question, len(turn.history)) == (4, "question u1 4", 6)
    assert [message.role for message in turn.history] == ["user", "agent"] * 3
    assert data.topic_switches()["f1<::>2"] is True
    assert len(list(iter_passages(out / "corpus.jsonl"))) == 14
    for name in ("turns.jsonl", "corpus.jsonl", "turn_info.jsonl", "run.json"):
        assert SECRET not in (out / name).read_text()
    rewrites = {each.qid: each.text for each in read_rewrites(out / "human_rewrites.jsonl")}
    assert {text for text in rewrites.values() if text} == {
        f"human {conv}" for conv in convs["test"]
    }


def test_some_domains_only_and_an_unpacked_corpus(tmp_path: Path, checkout: Path) -> None:
    packed = checkout / "corpora" / "passage_level" / "fiqa.jsonl.zip"
    with zipfile.ZipFile(packed) as archive:
        archive.extract("fiqa.jsonl", packed.parent)
    packed.unlink()
    expected = (("num_mtrag_turns", 4), ("num_passages_read", 7))
    counts = convert(
        checkout, tmp_path / "out", kept(expected=expected), domains=("fiqa",), with_un=False
    )
    assert {turn.conv_id for turn in load_dataset(tmp_path / "out").all_turns} == {"f1", "f2"}
    assert counts["num_mtragun_turns"] == 0


def test_the_older_name_of_the_folder(tmp_path: Path, checkout: Path) -> None:
    (checkout / "mtrag-human").rename(checkout / "human")
    assert convert(checkout, tmp_path / "out")["num_turns"] == 12


def test_the_same_is_kept_and_another_draw_refused(tmp_path: Path, checkout: Path) -> None:
    out = tmp_path / "out"
    counts = convert(checkout, out)
    before = (out / "corpus.jsonl").stat().st_mtime_ns
    assert convert(checkout, out) == counts
    assert (out / "corpus.jsonl").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"test_share \(there 0\.4, now 0\.2\)"):
        convert(checkout, out, test_share=0.2)


def test_counts_must_be_the_published_ones(tmp_path: Path, checkout: Path) -> None:
    with pytest.raises(DataError, match="num_mtrag_turns is 10 and should be 368"):
        convert(checkout, tmp_path / "out", kept())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        ("mtrag-human/generation_tasks/reference.jsonl", "make a whole checkout of"),
        ("corpora/passage_level/fiqa.jsonl.zip", r"fiqa\.jsonl\.zip: no such file"),
        ("mtragun-human/retrieval_tasks/qrels/fiqa.tsv", "leave MTRAG-UN out with --without-un"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, checkout: Path, lost: str, sentence: str) -> None:
    (checkout / lost).unlink()
    with pytest.raises(MissingFileError, match=sentence):
        convert(checkout, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("corpora/passage_level/fiqa.jsonl.zip", "version https://git-lfs.x/spec/v1\n", "lfs pull"),
        ("corpora/passage_level/fiqa.jsonl.zip", "PK\3\4 half", "damaged archive"),
        (
            "mtrag-human/retrieval_tasks/fiqa/qrels/dev.tsv",
            "nobody<::>1\tfiqa-1\t1\n",
            "'nobody<::>1' is judged, but not there",
        ),
        (
            "mtrag-human/retrieval_tasks/fiqa/qrels/dev.tsv",
            "f1<::>1\tfiqa-99\t1\n",
            "1 of 6 relevant passages are not in the corpus, first 'fiqa-99'",
        ),
        ("mtrag-human/retrieval_tasks/fiqa/qrels/dev.tsv", "f1<::>1\tfiqa-1\n", "3 columns"),
        (
            "mtrag-human/generation_tasks/reference.jsonl",
            json.dumps(task("c1", 2, input=[{"speaker": "agent", "text": "Hello"}])),
            'reference.jsonl:1: field "input" must end with a question',
        ),
        (
            "mtrag-human/generation_tasks/reference.jsonl",
            2 * (json.dumps(task("c1", 2)) + "\n"),
            "reference.jsonl:2: task 'c1<::>2' occurs twice",
        ),
        (
            "mtrag-human/generation_tasks/reference.jsonl",
            json.dumps({**task("c1", 2), "turn": "two"}),
            'field "turn"',
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(
    tmp_path: Path, checkout: Path, name: str, content: str, sentence: str
) -> None:
    (checkout / name).write_text(content)
    with pytest.raises(DataError, match=sentence.replace("(", r"\(")):
        convert(checkout, tmp_path / "out", kept(allow_count_mismatch=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"domains": ("fiqa", "fiqa")}, "--domain takes each of"),
        ({"domains": ("banking",)}, "got banking"),
        ({"test_share": 1.0}, "--test-share"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        MtragSettings(**settings)  # pyright: ignore[reportArgumentType]
