"""The seven question sets and wiki-18: from files of their published shape to our own."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from raw_files import kept, plain_catalogue, source
from typer.testing import CliRunner

from convsearch.cli.data import app
from convsearch.data.catalogue import load_catalogue
from convsearch.data.qa_sets import PUBLISHED, RAW_SPLITS, convert_qa_sets, split_of
from convsearch.data.questions import load_questions
from convsearch.data.raw_turns import RawSource
from convsearch.data.wiki18 import convert_wiki18, read_wiki18, title_and_text
from convsearch.errors import ConfigError, DataError, DownloadError, MissingFileError
from convsearch.passages import iter_passages

CONTENTS = [
    '"Ada Lovelace"\nAda wrote the first program.',
    '"""Heroes"" (song)"\nA song.\nOf two lines.',
    "no title here",
]


def line(split: str, number: int, *answers: object, **changes: object) -> dict[str, object]:
    return {
        "id": f"{split}_{number}",
        "question": f"who made thing {number}? ",
        "golden_answers": list(answers),
        "metadata": {},
        **changes,
    }


def write_lines(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def raw(tmp_path: Path) -> RawSource:
    """Offline, with small files under the names of the real ones."""
    folder = tmp_path / "raw"
    for name, splits in RAW_SPLITS.items():
        for split in splits:
            write_lines(folder / f"{name}_{split}.jsonl", [line(split, 0, "Ada", "Ada ", " ")])
    write_lines(
        folder / "hotpotqa_dev.jsonl",
        [line("dev", n, "yes", metadata={"type": "comparison", "level": "hard"}) for n in (0, 1)],
    )
    write_lines(folder / "popqa_test.jsonl", [line("test", 0, id=7), line("test", 1, "b")])
    return source(folder, catalogue=plain_catalogue(tmp_path / "downloads.json"))


def loose(**changes: object):
    return kept(allow_count_mismatch=True, **changes)


def test_every_published_count_has_a_file_in_the_shipped_catalogue() -> None:
    files = {f.name: f for n in RAW_SPLITS for f in load_catalogue()[f"qa_{n}"].files}
    assert {f"raw_{name.removesuffix('.jsonl')}" for name in files} == set(PUBLISHED)
    assert all(f.urls[0].endswith(f"/{n.replace('_', '/')}") for n, f in files.items())


def test_what_the_papers_report_on_is_the_split_test(tmp_path: Path, raw: RawSource) -> None:
    counts = convert_qa_sets(raw, tmp_path / "out", loose(), names=list(RAW_SPLITS))
    data = load_questions(tmp_path / "out")
    assert data.corpus_path is None
    assert data.qrels == {}
    assert {q.dataset for q in data.questions("test")} == set(RAW_SPLITS)
    assert {q.dataset for q in data.questions("dev")} == {"nq", "triviaqa"}
    assert {q.dataset for q in data.questions("train")} == {
        name for name in RAW_SPLITS if "train" in RAW_SPLITS[name]
    }
    by_qid = {q.qid: q for q in data.all_questions}
    assert by_qid["hotpotqa-dev_1"].type == "comparison"
    assert by_qid["nq-test_0"].answers == ("Ada",)
    assert by_qid["nq-test_0"].question == "who made thing 0?"
    assert by_qid["popqa-test_7"].answers == ()
    assert (counts["without_answers"], counts["raw_hotpotqa_dev"]) == (1, 2)
    assert counts["left_out_answers"] == 2 * (sum(map(len, RAW_SPLITS.values())) - 2)
    assert counts["count_mismatches"] == len(PUBLISHED)
    assert split_of("nq", "dev") == "dev"
    assert split_of("musique", "dev") == "test"


def test_only_the_files_of_the_wanted_splits_are_needed(tmp_path: Path, raw: RawSource) -> None:
    for path in raw.folder.glob("*_train.jsonl"):
        path.unlink()
    names = ["nq", "bamboogle"]
    with pytest.raises(MissingFileError, match=r"resolve/main/nq/train.jsonl"):
        convert_qa_sets(raw, tmp_path / "out", loose(), names=names)
    expected = kept(expected=(("raw_nq_test", 1), ("raw_bamboogle_test", 1)))
    convert_qa_sets(raw, tmp_path / "out", expected, names=names, splits=["test"])
    assert len(load_questions(tmp_path / "out").all_questions) == 2


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([], "no questions in this file"),
        ([line("test", 0), line("test", 0)], "'test_0' occurs twice"),
        ([line("test", 0, 7)], "must hold texts"),
        ([line("test", 0, golden_answers="Ada")], 'field "golden_answers" must be list'),
        ([line("test", 0, question=" ")], 'field "question" is empty'),
        ([{"id": "x"}], 'field "golden_answers" is missing'),
        ([line("test", 0)] * 1 + [line("test", n) for n in (1, 2)], "is 3 and should be 125"),
    ],
)
def test_a_bad_file_leaves_nothing(tmp_path: Path, raw: RawSource, records, told: str) -> None:
    write_lines(raw.folder / "bamboogle_test.jsonl", records)
    with pytest.raises(DataError, match=told):
        convert_qa_sets(raw, tmp_path / "out", kept(), names=["bamboogle"])
    assert not (tmp_path / "out").exists()


def test_unknown_words_are_told(tmp_path: Path, raw: RawSource) -> None:
    with pytest.raises(ConfigError, match="unknown 'squad'"):
        convert_qa_sets(raw, tmp_path / "out", kept(), names=["squad"])
    with pytest.raises(ConfigError, match="no split dev of popqa"):
        convert_qa_sets(raw, tmp_path / "out", kept(), names=["popqa"], splits=["dev"])


def test_the_commands_take_their_flags(tmp_path: Path, raw: RawSource) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    common = ["--raw", raw.folder, "--catalogue", raw.catalogue, "--out", tmp_path / "o"]
    words = ["qa-sets", *common, "--set", "bamboogle", "--offline", "--expect"]
    assert "num_questions" in run(*words, "raw_bamboogle_test=1")
    assert "as recorded" in run("qa-sets", *common, "--set", "bamboogle", "--verify")
    write_archive(raw.folder / "wiki-18.jsonl.gz", CONTENTS)
    words = ["wiki18", *common[:-1], tmp_path / "w", "--offline", "--expect"]
    assert "num_blank_passages" in run(*words, "num_passages_read=3")
    assert "as recorded" in run(*words[:-1], "--download-only")
    with pytest.raises(DataError, match="holds questions"):
        convert_wiki18(raw, tmp_path / "o", kept())


def jsonl(contents: Sequence[str]) -> bytes:
    rows = ({"id": str(n), "contents": text} for n, text in enumerate(contents))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_archive(path: Path, contents: Sequence[str], name: str = "a/b/wiki_dump.jsonl") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("a/b")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        info = tarfile.TarInfo(name)
        info.size = len(jsonl(contents))
        archive.addfile(info, io.BytesIO(jsonl(contents)))


def test_wiki18_is_read_as_an_archive_and_as_plain_lines(tmp_path: Path) -> None:
    packed, plain = tmp_path / "packed.jsonl.gz", tmp_path / "plain.jsonl.gz"
    write_archive(packed, CONTENTS)
    plain.write_bytes(gzip.compress(jsonl(CONTENTS)))
    read = [raw.passage for raw in read_wiki18(packed)]
    assert read == [raw.passage for raw in read_wiki18(plain)]
    assert [(p.doc_id, p.title, p.text) for p in read] == [
        ("0", "Ada Lovelace", "Ada wrote the first program."),
        ("1", '"Heroes" (song)', "A song.\nOf two lines."),
        ("2", "", "no title here"),
    ]
    assert title_and_text('Bare\n"x"') == ("Bare", '"x"')


def test_wiki18_becomes_a_corpus(tmp_path: Path, raw: RawSource) -> None:
    write_archive(raw.folder / "wiki-18.jsonl.gz", CONTENTS)
    with pytest.raises(DataError, match="num_passages_read is 3 and should be 21,015,324"):
        convert_wiki18(raw, tmp_path / "out", kept())
    assert not (tmp_path / "out").exists()
    counts = convert_wiki18(raw, tmp_path / "out", kept(expected=(("num_passages_read", 3),)))
    assert counts["num_passages"] == 3
    assert len(list(iter_passages(tmp_path / "out" / "corpus.jsonl"))) == 3


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[: len(data) // 2], "damaged after line"),
        (lambda _: gzip.compress(b"nothing of this kind" * 99), "damaged after line 0"),
        (lambda _: b"{}", "damaged after line 0"),
        (lambda _: gzip.compress(b'{"id": "1"}\n'), 'field "contents" is missing'),
        (lambda _: gzip.compress(b'{"id": "\xff"}\n'), "not text in UTF-8"),
        (lambda _: gzip.compress(b"{x\n"), "not valid JSON"),
    ],
)
def test_a_damaged_corpus_is_told(tmp_path: Path, damage, told: str) -> None:
    path = tmp_path / "w.jsonl.gz"
    write_archive(path, [f'"t{n}"\n{n * 7919 % 1009}' for n in range(500)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=told):
        list(read_wiki18(path))
    write_archive(path, CONTENTS, name="readme.txt")
    with pytest.raises(DataError, match=r"without a .jsonl file"):
        list(read_wiki18(path))
    with pytest.raises(MissingFileError):
        list(read_wiki18(tmp_path / "none"))


def test_another_file_of_that_name_is_refused(tmp_path: Path, raw: RawSource) -> None:
    write_archive(raw.folder / "wiki-18.jsonl.gz", CONTENTS)
    with pytest.raises((DataError, DownloadError), match="instead of 5,123,307,260"):
        convert_wiki18(source(raw.folder), tmp_path / "out", kept())
