"""A finished corpus outlives an error; anything else is made anew, and nothing is half there."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from convsearch.data.corpus_job import RawPassage, make_corpus, prepared_folder
from convsearch.data.holding import held
from convsearch.errors import ConfigError, DataError
from convsearch.passages import refuse_repeats
from convsearch.types import Passage

NUM = 20


def raw(n: int, doc_id: str) -> RawPassage:
    passage = Passage(doc_id=doc_id, title="", text=f"t{n}")
    return RawPassage(raw_id=f"r{n}", passage=passage, where=f"raw.tsv:{n + 1}")


def passages(read: list[int], stop_at: int | None = None) -> Iterator[RawPassage]:
    """Notes what is read, and breaks down at `stop_at`."""
    for n in range(NUM):
        if n == stop_at:
            raise RuntimeError("broke")
        read.append(n)
        yield raw(n, f"d{n}")


def attempt(out: Path, job: int, read: list[int], fail: str = "") -> None:
    with prepared_folder(out, {"job": job}) as folder:
        stop_at = NUM // 2 if fail == "corpus" else None
        report = make_corpus(
            folder, lambda: passages(read, stop_at), wanted={"r3"}, with_text={"r3"}
        )
        assert (report.found, report.texts) == ({"r3": ["d3"]}, {"r3": "t3"})
        if fail == "later":
            raise RuntimeError("broke")
        (folder / "more").write_text("more")


def test_a_finished_corpus_is_not_written_twice(tmp_path: Path) -> None:
    out, read = tmp_path / "out", []
    with pytest.raises(RuntimeError):
        attempt(out, 1, read, "later")
    assert not out.exists()
    assert len(read) == NUM
    attempt(out, 1, read)
    assert len(read) == NUM
    assert sorted(p.name for p in out.iterdir()) == ["corpus.jsonl", "more"]
    assert list(tmp_path.iterdir()) == [out]


def test_an_unfinished_corpus_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        attempt(tmp_path / "out", 1, [], "corpus")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["other job", "cut corpus"])
def test_a_corpus_that_is_not_the_one_is_written_anew(tmp_path: Path, change: str) -> None:
    out, read = tmp_path / "out", []
    with pytest.raises(RuntimeError):
        attempt(out, 1, read, "later")
    if change == "cut corpus":
        corpus = tmp_path / "out.partial" / "corpus.jsonl"
        corpus.write_bytes(corpus.read_bytes()[:-1])
    attempt(out, 2 if change == "other job" else 1, read)
    assert len(read) == 2 * NUM
    assert len((out / "corpus.jsonl").read_text().splitlines()) == NUM


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    def peak(number: int) -> int:
        def made() -> Iterator[RawPassage]:
            return (raw(n, f"d{n}") for n in range(number))

        (tmp_path / str(number)).mkdir()
        tracemalloc.start()
        make_corpus(tmp_path / str(number), made, wanted={"r3"})
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(10)
    assert peak(5000) < peak(1000) + 100_000, "bytes; a set of the ids would take 400,000 more"


@pytest.mark.parametrize("keep_one_in", [1, 3])
def test_a_repeated_id_is_named_with_both_its_places(tmp_path: Path, keep_one_in: int) -> None:
    out, times = tmp_path / "out", []

    def read() -> Iterator[RawPassage]:
        times.append(1)
        return (raw(n, f"d{n % 7}" if n == 10 else f"d{n}") for n in range(NUM))

    sentence = r"raw\.tsv:11: doc_id 'd3' occurs twice, first in line 4; passage ids must be unique"
    with pytest.raises(DataError, match=sentence), prepared_folder(out, {}) as folder:
        make_corpus(folder, read, wanted={"r3"}, keep_one_in=keep_one_in)
    assert len(times) == 2
    assert list(tmp_path.iterdir()) == []


def test_places_of_two_files_are_both_named(tmp_path: Path) -> None:
    places = [("a.cbor: paragraph 4", "d"), ("b.tsv:7", "d")]
    with pytest.raises(DataError, match=r"b\.tsv:7: .*first at a\.cbor: paragraph 4;"):
        refuse_repeats(lambda: places, [hash("d")])
    refuse_repeats(lambda: [("a:1", "x"), ("a:2", "y")], [hash("x"), hash("y")])  # equal hashes


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path / "out.partial"), pytest.raises(ConfigError, match="another process"):
        attempt(tmp_path / "out", 1, [])


def test_files_and_foreign_files_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        attempt(tmp_path / "file", 1, [])
    out = tmp_path / "out"
    out.mkdir()
    for name in ("kept", "human_rewrites.dev.jsonl", "corpus.jsonl.gz", "corpus.jsonl"):
        (out / name).write_text("old")
    attempt(out, 1, [])
    assert sorted(p.name for p in out.iterdir()) == ["corpus.jsonl", "kept", "more"]
    assert (out / "kept").read_text() == "old"
    assert (out / "corpus.jsonl").read_text() != "old"


def test_what_a_broken_attempt_left_is_not_taken_along(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        attempt(out, 1, [], "later")
    (tmp_path / "out.partial" / "human_rewrites.dev.jsonl").write_text("stale")
    attempt(out, 1, [])
    assert sorted(p.name for p in out.iterdir()) == ["corpus.jsonl", "more"]
