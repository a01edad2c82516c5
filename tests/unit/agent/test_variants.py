"""Variants by rules, and the ablation that counts what they bring."""

import pytest
from agent_case import PASSAGES, some_questions

from convsearch.agent.ablation import ablate_variants, ablation_table
from convsearch.agent.variants import rule_variants
from convsearch.errors import ConfigError, DataError
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage, Question


@pytest.mark.parametrize(
    ("question", "variants"),
    [
        (
            "Who was born first, Marino Girolami or Daniel Myrick?",
            [
                "Who was born first, Marino Girolami or Daniel Myrick?",
                "Marino Girolami born",
                "Daniel Myrick born",
                "Marino Girolami Daniel Myrick",
                "born Marino Girolami Daniel Myrick",
            ],
        ),
        (
            'In what city did the band of "Tinted Windows" play?',
            [
                'In what city did the band of "Tinted Windows" play?',
                "Tinted Windows city band play",
                "Tinted Windows",
            ],
        ),
        ("who sings this song", ["who sings this song", "sings song"]),
        ("why?", ["why?"]),
        ("  spaced \n out ", ["spaced out"]),
        ("?!", []),
        ("", []),
    ],
)
def test_rules(question: str, variants: list[str]):
    assert rule_variants(question, 5) == variants
    assert rule_variants(question, 1) == variants[:1]


def question(text: str, qid: str = "q1") -> Question:
    return Question(qid=qid, dataset="d", question=text, answers=(), type="", split="dev")


def test_two_sides_of_a_comparison_are_found_by_two_queries():
    corpus = [
        Passage(doc_id="a", title="Ann Bell", text="Ann Bell was born in 1900."),
        Passage(doc_id="c", title="Carl Dorn", text="Carl Dorn born 1905."),
        *(
            Passage(doc_id=f"x{i}", title="", text="who was born first or last Ann")
            for i in range(9)
        ),
    ]
    asked = [question("Who was born first, Ann Bell or Carl Dorn?")]
    rows = ablate_variants(
        asked, {"q1": ["a", "c"]}, InMemoryRetriever(corpus), ns=[1, 3], ks=[1, 5], top=2
    )
    assert [(r.k, r.n) for r in rows] == [(1, 1), (1, 3), (5, 1), (5, 3)]
    assert rows[0].all_gold_read == 0
    assert rows[1].all_gold_read == 1
    assert rows[1].mean_documents == 2
    assert rows[1].gain == rows[1].all_gold_read - rows[1].single_same_documents
    table = ablation_table(rows, 2)
    assert table.count("\n") == 5
    assert "all gold in top 2" in table


def test_one_variant_is_the_question_itself():
    questions = some_questions(3)
    golds = {q.qid: ["d1"] for q in questions}
    for row in ablate_variants(questions, golds, InMemoryRetriever(PASSAGES), ns=[1], ks=[1, 3]):
        assert row.gain == 0
        assert row.gain_interval == (0, 0)
        assert row.mean_queries == 1


def test_bad_settings_are_sentences():
    engine = InMemoryRetriever(PASSAGES)
    questions, golds = some_questions(2), {"q0": ["d1"], "q1": ["d1"]}
    with pytest.raises(ConfigError, match="must be 1 or more"):
        ablate_variants(questions, golds, engine, ns=[0])
    with pytest.raises(ConfigError, match="must be 1 or more"):
        ablate_variants(questions, golds, engine, ks=[])
    with pytest.raises(DataError, match="'q1' has no gold"):
        ablate_variants(questions, {"q0": ["d1"]}, engine)
    with pytest.raises(DataError, match="no questions"):
        ablate_variants([], {}, engine)
