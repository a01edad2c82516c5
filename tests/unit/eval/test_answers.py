"""Answers are compared as SQuAD's script compares them."""

import pytest

from convsearch.eval.answers import answer_f1, exact_match, normalise_answer


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles", "beatles"),
        ("  an  Apple\n", "apple"),
        ("U.S.A.", "usa"),
        ("Theatre", "theatre"),
        ("a-b", "ab"),
        ("the", ""),
        ("Zoë!", "zoë"),
        ("A. A. Milne", "milne"),
    ],
)
def test_normal_form(text: str, normal: str):
    assert normalise_answer(text) == normal


@pytest.mark.parametrize(
    ("answer", "golds", "em"),
    [
        ("the Ada Lovelace.", ["Ada Lovelace"], 1.0),
        ("Ada", ["Ada Lovelace"], 0.0),
        ("Countess", ["Ada", "countess!"], 1.0),
        (None, ["Ada"], 0.0),
        ("Ada", [], 0.0),
        ("the", ["a"], 0.0),
        ("", [""], 0.0),
    ],
)
def test_exact_match(answer: str | None, golds: list[str], em: float):
    assert exact_match(answer, golds) == em


@pytest.mark.parametrize(
    ("answer", "golds", "f1"),
    [
        ("Ada Lovelace", ["Ada Lovelace"], 1.0),
        ("Ada", ["Ada Lovelace"], 2 / 3),
        ("Ada Ada", ["Ada Lovelace"], 0.5),
        ("King Ada", ["Ada Lovelace", "Ada"], 2 / 3),
        ("yes", ["yes it is"], 0.0),
        ("no", ["no"], 1.0),
        ("no", ["yes"], 0.0),
        (None, ["Ada"], 0.0),
        ("Ada", [], 0.0),
        ("the", ["the"], 1.0),
        ("the", ["a"], 0.0),
    ],
)
def test_f1(answer: str | None, golds: list[str], f1: float):
    assert answer_f1(answer, golds) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("The The", "The The"),
        ("the the", "The The"),
        ("  The   THE!", "The The"),
        ("A", "A"),
        ("a.", "A"),
        ("An", "an"),
        ("+", "+"),
        (" + ", "+"),
        ("-", "-"),
        ("!!!", "!!!"),
        ("C++", "C++"),
        ("…", "…"),
        ("¿?", "¿?"),
        ("a the", "A the"),
    ],
)
def test_answers_of_which_normalising_leaves_nothing(answer: str, gold: str) -> None:
    assert exact_match(answer, [gold]) == 1.0
    assert exact_match(answer, ["", "other", gold]) == 1.0
    assert answer_f1(answer, [gold]) == 1.0


@pytest.mark.parametrize(
    ("answer", "golds"),
    [
        ("the", ["A"]),
        ("A", ["The The"]),
        ("the", ["The The"]),
        ("-", ["+"]),
        ("!!", ["!!!"]),
        ("A B", ["A"]),
        ("the", ["the band"]),
        ("", ["", " ", "+"]),
        ("...", [""]),
        ("+", []),
        (None, ["A", ""]),
    ],
)
def test_answers_that_differ_before_normalising_are_wrong(
    answer: str | None, golds: list[str]
) -> None:
    assert exact_match(answer, golds) == 0.0
    assert answer_f1(answer, golds) == 0.0
