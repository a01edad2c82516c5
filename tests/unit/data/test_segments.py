"""The passages' file of TopiOCQA: both ways of quoting, and what is wrong is named by its line."""

from pathlib import Path

import pytest
from raw_files import PASSAGES, write_segments

from convsearch.data.segments import guess_quoting, read_segments
from convsearch.errors import DataError, MissingFileError

TITLES = ["Mill Early years", "Mill Design", "Song", "Nothing here", "Tower"]


@pytest.mark.parametrize("quoted", [True, False])
def test_both_ways_of_quoting_give_the_same_passages(tmp_path: Path, quoted: bool) -> None:
    path = tmp_path / "p.tsv"
    write_segments(path, quoted=quoted)
    read = [raw.passage for raw in read_segments(path)]
    assert [(p.doc_id, p.text) for p in read] == [(i, text) for i, text, _ in PASSAGES]
    assert [p.title for p in read] == TITLES
    assert guess_quoting(path) == ("csv" if quoted else "none")


def test_the_trap_is_real(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    write_segments(path, [("1", '"Begins and never ends', "A"), ("2", "x", "B")], quoted=False)
    assert len(list(read_segments(path))) == 2
    with pytest.raises(DataError, match="quoting"):
        list(read_segments(path, "csv"))


def test_csv_fields_may_hold_line_ends_and_tabs(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    rows = [("1", 'two\nlines with a "quote"', "A"), ("2", "a\ttab", "B"), ("3", 'say "x"', "C")]
    write_segments(path, rows)
    assert [(r.raw_id, r.passage.text) for r in read_segments(path)] == [r[:2] for r in rows]


def test_a_carriage_return_inside_a_plain_text_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_bytes(b'id\ttext\ttitle\n1\tone\rmore "bare"\tA\n2\ttwo\tB\n')
    assert [r.passage.text for r in read_segments(path)] == ['one\rmore "bare"', "two"]


@pytest.mark.parametrize(
    ("line", "told"),
    [("7\tonly two", "p.tsv:3: expected 3 columns"), ("\ttext\tT", "p.tsv:3: '' is not an id")],
)
@pytest.mark.parametrize("quoting", ["csv", "none"])
def test_a_bad_row_is_named(tmp_path: Path, line: str, told: str, quoting: str) -> None:
    path = tmp_path / "p.tsv"
    path.write_text(f"id\ttext\ttitle\n1\tx\tT\n{line}\n")
    with pytest.raises(DataError, match=told):
        list(read_segments(path, quoting))  # pyright: ignore[reportArgumentType]


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        list(read_segments(tmp_path / "p.tsv"))
    (tmp_path / "p.tsv").write_bytes(b"id\ttext\ttitle\n1\t\xff\xfe\tT\n")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_segments(tmp_path / "p.tsv", "none"))
