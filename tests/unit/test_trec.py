"""Judgements and rankings: what passes, what is refused, and in which words."""

from pathlib import Path

import pytest

from convsearch.errors import DataError
from convsearch.files import read_qrels, read_run, write_run
from convsearch.trec import MAX_GRADE
from convsearch.types import Hit


def qrels_of(folder: Path, text: str) -> dict[str, dict[str, int]]:
    (folder / "qrels.trec").write_text(text)
    return read_qrels(folder / "qrels.trec")


@pytest.mark.parametrize(
    ("grade", "value"),
    [("1.0", 1), ("2.", 2), ("2.000", 2), ("+1", 1), ("-2", -2), ("-1.0", -1), ("1e0", 1),
     ("1E+03", 1000), (str(MAX_GRADE), MAX_GRADE), (str(-MAX_GRADE), -MAX_GRADE), ("0.0", 0)],
)  # fmt: skip
def test_whole_numbers_pass_however_written(tmp_path: Path, grade: str, value: int) -> None:
    assert qrels_of(tmp_path, f"q\t0\td\t{grade}\r\n") == {"q": {"d": value}}


@pytest.mark.parametrize(
    ("grade", "said"),
    [
        ("0.5", "whole number, found '0.5'; grades are whole numbers"),
        ("1e-1", "whole number"),
        ("nan", "whole number, found 'nan'"),
        ("1_0", "whole number, found '1_0'"),
        ("\uff11", "whole number"),
        ("0x1", "whole number"),
        ("9" * 20, "between -100,000 and 100,000"),
        ("2147483647", "between -100,000 and 100,000"),
        ("-2147483649", "between"),
        ("1e999", "between"),
        ("-inf", "between"),
        ("100001", "between"),
    ],
)
def test_other_grades_are_refused_by_line(tmp_path: Path, grade: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"qrels\.trec:2: relevance must be .*{said}"):
        qrels_of(tmp_path, f"q 0 a 1\nq 0 b {grade}\n")


@pytest.mark.parametrize("grades", ["1 0", "0 1", "1 2", "1 -1"])
def test_judgements_that_contradict_are_named_with_both_lines(tmp_path: Path, grades: str) -> None:
    first, second = grades.split()
    text = f"q 0 other 1\nq 0 d {first}\np 0 d {second}\nq 0 d {second}\n"
    said = rf"qrels\.trec:4: .*'d' of qid 'q' has relevance {second} here and {first} in line 2;"
    with pytest.raises(DataError, match=said):
        qrels_of(tmp_path, text)


def test_the_same_judgement_twice_counts_once(tmp_path: Path) -> None:
    assert qrels_of(tmp_path, "q 0 d 1\nq 0 e 0\nq 1 d 1.0\n") == {"q": {"d": 1, "e": 0}}


@pytest.mark.parametrize("header", ["query-id\tcorpus-id\tscore", "Query-ID corpus_id Score"])
def test_the_three_columns_of_beir_are_read(tmp_path: Path, header: str) -> None:
    text = f"\ufeff{header}\nq1\td1\t1\nq1\td2\t2.0\nq2\td1\t0"
    assert qrels_of(tmp_path, text) == {"q1": {"d1": 1, "d2": 2}, "q2": {"d1": 0}}


def test_contradictions_are_found_in_the_form_of_beir(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r":3: .*relevance 0 here and 1 in line 2"):
        qrels_of(tmp_path, "query-id corpus-id score\nq d 1\nq d 0\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q d 1\n", r":1: expected 4 columns .*found 3; BEIR's three columns need their first"),
        ("query-id corpus-id score\nq 0 d 1\n", r":2: expected 3 columns .*found 4"),
        ("q Q0 d 1 2.5 tag\n", r":1: .*found 6; this is a ranking, for --run"),
        ("q,0,d,1\n", r":1: .*not by commas"),
        ("q 0 1 d\n", r":1: relevance must be a whole number, found 'd'; the columns are qid 0"),
        ("qid iter docno rel\n", r":1: .*remove the line of headings"),
        ("q d1 0 1\nq d2 0 1\n", "the third column of every line is 0"),
        ("q d1 0 1\nq d2 0 0\n", "relevance 0 here and 1 in line 1"),
        ("query-id corpus-id score\n", "no relevance judgements"),
    ],
)
def test_other_forms_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        qrels_of(tmp_path, text)


def run_of(folder: Path, text: str) -> dict[str, list[Hit]]:
    (folder / "run.trec").write_text(text)
    return read_run(folder / "run.trec")


@pytest.mark.parametrize("rank", ["1.0", "-", "first", "0", "9" * 30])
def test_the_rank_column_is_not_looked_at(tmp_path: Path, rank: str) -> None:
    found = run_of(tmp_path, f"q Q0 a {rank} 2 t\nq Q0 b {rank} 1e0 t\n")
    assert found == {"q": [Hit(doc_id="a", score=2.0), Hit(doc_id="b", score=1.0)]}


@pytest.mark.parametrize("score", ["nan", "-NaN", "1_0", "high", "1,5", "0x1"])
def test_a_score_that_is_no_number_is_refused(tmp_path: Path, score: str) -> None:
    with pytest.raises(DataError, match=r"run\.trec:2: score must be a number, found"):
        run_of(tmp_path, f"q Q0 a 1 2 t\nq Q0 b 2 {score} t\n")


def test_judgements_given_as_a_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r":1: expected 6 columns .*found 4; these are judgements"):
        run_of(tmp_path, "q 0 d 1\n")


def test_a_query_in_two_places_is_joined_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = run_of(tmp_path, "q Q0 a 1 2 t\np Q0 a 1 2 t\nq Q0 b 1 3 t\n")
    assert [hit.doc_id for hit in found["q"]] == ["a", "b"]
    assert "run.trec:3: qid 'q' stands in more than one place" in caplog.text
    caplog.clear()
    run_of(tmp_path, "q Q0 a 1 2 t\nq Q0 b 1 3 t\np Q0 a 1 2 t\n")
    assert caplog.text == ""


@pytest.mark.parametrize("doc_id", ["a b", "", "a\n", "a\0"])
def test_ids_that_a_run_cannot_hold_are_refused_and_nothing_is_written(
    tmp_path: Path, doc_id: str
) -> None:
    with pytest.raises(DataError, match="cannot stand in a TREC run"):
        write_run(tmp_path / "run.trec", {"q": [Hit(doc_id=doc_id, score=1.0)]}, tag="t")
    assert list(tmp_path.iterdir()) == []
