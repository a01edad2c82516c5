"""Evaluation: nothing is dropped, every convention is what it says, files say what was measured."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import pytrec_eval
from rewriting import some_turns

from convsearch.errors import ConfigError, DataError, RetrieverError
from convsearch.files import read_jsonl, read_run
from convsearch.pipeline.baselines import baseline_queries
from convsearch.pipeline.evaluation import (
    ALL_QUERIES_NOTE,
    PAPER_COMPAT_NOTE,
    Evaluation,
    evaluate_queries,
    evaluate_rewrites,
    evaluate_searched,
)
from convsearch.pipeline.evaluation_files import write_evaluation
from convsearch.pipeline.searched import Searched
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Hit, Passage, Rewrite, Turn

TURNS = some_turns(9, split="test")
PASSAGES = [Passage(doc_id=f"d{i}", title="", text=t.question) for i, t in enumerate(TURNS)] + [
    Passage(doc_id=f"x{i}", title="", text=t.question.split()[0]) for i, t in enumerate(TURNS)
]
QRELS = {t.qid: {f"d{i}": 1, f"x{(i + 1) % 9}": 1} for i, t in enumerate(TURNS)}
RETRIEVER = InMemoryRetriever(PASSAGES)


def rewrite(turn: Turn, status: str, text: str | None = None) -> Rewrite:
    return Rewrite(qid=turn.qid, status=status, text=text, response="", seed=0)


def mixed_rewrites() -> list[Rewrite]:
    """Four perfect, one wrong, one of unknown words, one malformed, one failed; one is missing."""
    return [
        *(rewrite(t, "ok", t.question) for t in TURNS[:4]),
        rewrite(TURNS[4], "ok", TURNS[0].question),
        rewrite(TURNS[5], "ok", "zzz unknown"),
        rewrite(TURNS[6], "malformed"),
        rewrite(TURNS[7], "failed"),
    ]


def reciprocal_rank(turn: Turn, query: str) -> float:
    """From `ranks`, a path that evaluation does not take."""
    [rank] = RETRIEVER.ranks([query], [list(QRELS[turn.qid])], 100)
    return 1 / rank if rank else 0.0


def test_fallbacks_are_searched_and_counted_and_the_mean_goes_over_all():
    found = evaluate_rewrites(TURNS, mixed_rewrites(), RETRIEVER, QRELS)
    assert found.counts == {
        "num_queries": 9, "answered": 6, "missing": 1, "malformed": 1, "failed": 1,
    }  # fmt: skip
    searched = [t.question for t in TURNS]
    searched[4:6] = [TURNS[0].question, "zzz unknown"]
    assert [s.query for s in found.searched] == searched
    expected = [reciprocal_rank(t, q) for t, q in zip(TURNS, searched, strict=True)]
    assert found.num_averaged == 9
    assert found.metrics["mrr"] == pytest.approx(sum(expected) / 9, abs=1e-9)
    assert found.mrr_interval is not None
    assert found.mrr_interval[0] <= found.metrics["mrr"] <= found.mrr_interval[1]
    assert found.note == ALL_QUERIES_NOTE


def test_paper_compat_leaves_out_what_was_not_answered_or_found_nothing_and_says_so():
    found = evaluate_rewrites(TURNS, mixed_rewrites(), RETRIEVER, QRELS, paper_compat=True)
    answered = [(t, t.question) for t in TURNS[:4]] + [(TURNS[4], TURNS[0].question)]
    expected = [reciprocal_rank(t, q) for t, q in answered]
    assert found.num_averaged == 5
    assert found.metrics["mrr"] == pytest.approx(sum(expected) / 5, abs=1e-9)
    assert found.counts["malformed"] == 1
    assert found.note == PAPER_COMPAT_NOTE


def test_qrels_of_other_splits_do_not_count():
    more = {**QRELS, "of-another-split": {"d0": 1}}
    queries = baseline_queries(TURNS, "raw")
    assert (
        evaluate_queries(TURNS, queries, RETRIEVER, more).metrics
        == evaluate_queries(TURNS, queries, RETRIEVER, QRELS).metrics
    )


def test_baselines_and_missing_queries():
    assert baseline_queries(TURNS, "raw") == {t.qid: t.question for t in TURNS}
    history = baseline_queries(TURNS, "history")
    assert history["q2"] == " ".join([*(m.text for m in TURNS[2].history), TURNS[2].question])
    found = evaluate_queries(TURNS, {"q0": "amber"}, RETRIEVER, QRELS)
    assert found.counts["missing"] == 8
    with pytest.raises(ConfigError, match="raw or history"):
        baseline_queries(TURNS, "magic")  # pyright: ignore[reportArgumentType]


def test_files_agree_with_each_other_and_with_trec_eval(tmp_path: Path):
    found = evaluate_rewrites(TURNS, mixed_rewrites(), RETRIEVER, QRELS, seed=3)
    write_evaluation(tmp_path, found, tag="mine", settings={"dataset": "toy"}, seed=3)
    run = read_run(tmp_path / "run.trec")
    assert run == {qid: hits for qid, hits in found.run.items() if hits}
    lines = (tmp_path / "run.trec").read_text().splitlines()
    assert all(len(line.split()) == 6 and line.endswith(" mine") for line in lines)
    as_trec = {qid: {h.doc_id: h.score for h in hits} for qid, hits in run.items()}
    judged = pytrec_eval.RelevanceEvaluator(QRELS, {"recip_rank"}).evaluate(as_trec)
    rows = [record for _, record in read_jsonl(tmp_path / "per_query.jsonl")]
    assert [row["qid"] for row in rows] == [t.qid for t in TURNS]
    for row in rows:
        expected = judged[row["qid"]]["recip_rank"] if row["qid"] in judged else 0.0
        assert row["metrics"]["mrr"] == pytest.approx(expected, abs=1e-9)
        assert row["metrics"]["mrr"] == pytest.approx(1 / row["rank"] if row["rank"] else 0.0)
    statuses = [row["status"] for row in rows]
    assert statuses == ["ok"] * 6 + ["malformed", "failed", "missing"]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["metrics"] == found.metrics
    assert (metrics["convention"], metrics["mrr_depth"]) == ("all_queries", 100)
    assert json.loads((tmp_path / "run.json").read_text())["counts"] == found.counts


def test_ranks_do_not_hang_on_scores():
    class Tied(InMemoryRetriever):
        def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
            hits = super().search(queries, topk)
            return [[Hit(doc_id=h.doc_id, score=1.0) for h in found] for found in hits]

    queries = baseline_queries(TURNS, "raw")
    plain = evaluate_queries(TURNS, queries, RETRIEVER, QRELS)
    tied = evaluate_queries(TURNS, queries, Tied(PASSAGES), QRELS)
    assert tied.per_query == plain.per_query
    assert tied.run == plain.run


def test_a_rewrite_of_100_000_characters_is_searched():
    long = rewrite(TURNS[0], "ok", f"{TURNS[0].question} {'filler ' * 15_000}")
    found = evaluate_rewrites(TURNS[:1], [long], RETRIEVER, QRELS)
    assert found.ranks["q0"] is not None


def test_queries_without_words_are_not_sent():
    class Recording(InMemoryRetriever):
        def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
            assert all(query.strip() for query in queries)
            return super().search(queries, topk)

    searched = [Searched(qid="q0", query=" "), Searched(qid="q1", query=TURNS[1].question)]
    found = evaluate_searched(searched, Recording(PASSAGES), QRELS)
    assert found.run["q0"] == []
    assert found.mrr_interval is None
    assert found.num_averaged == 2


@pytest.mark.parametrize(
    ("rewrites", "said"),
    [
        ([rewrite(TURNS[0], "ok", "a"), *[rewrite(some_turns(12)[11], "ok", "a")]], "'q11' has a"),
        ([rewrite(TURNS[0], "ok", "a"), rewrite(TURNS[0], "ok", "b")],
         "several candidates for qid 'q0'"),
    ],
)  # fmt: skip
def test_rewrites_that_do_not_fit_are_refused(rewrites: list[Rewrite], said: str):
    with pytest.raises(DataError, match=said):
        evaluate_rewrites(TURNS, rewrites, RETRIEVER, QRELS)


def test_turns_without_gold_and_shallow_rankings_are_refused():
    queries = baseline_queries(TURNS, "raw")
    with pytest.raises(DataError, match="'q3' has no line in the qrels"):
        evaluate_queries(TURNS, queries, RETRIEVER, {q: g for q, g in QRELS.items() if q != "q3"})
    with pytest.raises(DataError, match="'q3' has no relevant passage"):
        evaluate_queries(TURNS, queries, RETRIEVER, {**QRELS, "q3": {"d0": 0}})
    with pytest.raises(ConfigError, match="topk must be 100 or more"):
        evaluate_queries(TURNS, queries, RETRIEVER, QRELS, 10)


def test_a_dead_retriever_is_never_a_metric():
    class Dead(InMemoryRetriever):
        def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
            raise RetrieverError("http://127.0.0.1:1: gave up")

    with pytest.raises(RetrieverError):
        evaluate_queries(TURNS, baseline_queries(TURNS, "raw"), Dead(PASSAGES), QRELS)


def test_nothing_answered_has_no_paper_mean():
    nothing = [rewrite(t, "malformed") for t in TURNS]
    with pytest.raises(DataError, match="no query to average"):
        evaluate_rewrites(TURNS, nothing, RETRIEVER, QRELS, paper_compat=True)
    assert isinstance(evaluate_rewrites(TURNS, nothing, RETRIEVER, QRELS), Evaluation)
