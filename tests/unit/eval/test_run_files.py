"""A TREC run of any program: read and measured as trec_eval does, by numbers derived by hand, by a
second implementation and by trec_eval's own code."""

import math
import random
import struct
from pathlib import Path

import pytest
import pytrec_eval

from convsearch.errors import ConfigError, DataError
from convsearch.eval import METRICS, metric_label, trec_eval_order
from convsearch.files import read_qrels, read_run
from convsearch.pipeline.evaluation import Evaluation
from convsearch.pipeline.run_files import evaluate_run
from convsearch.types import Hit, Turn

QRELS = """\
t1 0 d1 1
t1 0 d2 0
t2 0 d3 2
t2 0 d4 1
t2 0 d5 1
t3 0 d6 1
t4 0 d7 0
"""
RUN = """\
t1 Q0 d1 1 7.5 other
t1 Q0 d2 2 7.5 other
t1 Q0 d9 3 9.0 other
t2 Q0 d4 9 3.0 other
t2 Q0 d8 9 2.0 other
t2 Q0 d3 9 1.0 other
t4 Q0 d7 1 1.0 other
t8 Q0 d1 1 1.0 other
"""
BY_HAND = {
    # order d9 d2 d1: scores falling, then ids falling; the rank column says otherwise
    "t1": {"mrr": 1 / 3, "ndcg_cut_3": 1 / math.log2(4), "recall_5": 1.0},
    # order d4 d8 d3; the ideal is d3 with gain 2, then two of gain 1; d5 is never found
    "t2": {
        "mrr": 1.0,
        "ndcg_cut_3": (1 + 2 / math.log2(4)) / (2 + 1 / math.log2(3) + 1 / math.log2(4)),
        "recall_5": 2 / 3,
    },
    "t3": {"mrr": 0.0, "ndcg_cut_3": 0.0, "recall_5": 0.0},  # not in the run
    "t4": {"mrr": 0.0, "ndcg_cut_3": 0.0, "recall_5": 0.0},  # nothing is relevant
}


def files(folder: Path, run: str = RUN, qrels: str = QRELS) -> tuple[Path, Path]:
    (folder / "run").write_text(run)
    (folder / "qrels").write_text(qrels)
    return folder / "run", folder / "qrels"


def measured(run: Path, qrels: Path, **options: object) -> Evaluation:
    return evaluate_run(read_run(run), read_qrels(qrels), **options)  # pyright: ignore[reportArgumentType]


def test_numbers_derived_by_hand(tmp_path: Path):
    found = measured(*files(tmp_path))
    assert list(found.per_query) == ["t1", "t2", "t3", "t4"]
    for qid, expected in BY_HAND.items():
        for name, value in expected.items():
            assert found.per_query[qid][name] == pytest.approx(value, abs=1e-9)
    assert found.metrics["mrr"] == pytest.approx((1 / 3 + 1) / 4, abs=1e-9)
    assert found.ranks == {"t1": 3, "t2": 1, "t3": None, "t4": None}
    assert found.counts["missing"] == 1
    assert found.topk == 3
    assert found.mrr_interval is None
    assert "trec_eval -c" in found.note


def test_a_higher_level_leaves_ndcg_as_it_is(tmp_path: Path):
    found = measured(*files(tmp_path), relevance_level=2)
    assert found.per_query["t2"]["mrr"] == pytest.approx(1 / 3)  # d3 alone has grade 2
    assert found.per_query["t2"]["recall_5"] == 1.0
    assert found.ranks["t2"] == 3
    assert found.per_query["t1"]["mrr"] == found.per_query["t1"]["recall_5"] == 0.0
    for qid, expected in BY_HAND.items():
        assert found.per_query[qid]["ndcg_cut_3"] == pytest.approx(expected["ndcg_cut_3"])
    assert found.metrics["mrr"] == pytest.approx(1 / 3 / 4)
    assert found.note.endswith("(trec_eval -l 2), NDCG takes all grades")


def test_only_the_queries_of_the_run_on_request(tmp_path: Path):
    found = measured(*files(tmp_path), paper_compat=True)
    assert found.num_averaged == 3
    assert found.metrics["mrr"] == pytest.approx((1 / 3 + 1) / 3, abs=1e-9)
    assert "without -c" in found.note


def test_a_cut_names_the_depth_and_leaves_out_what_is_below(tmp_path: Path):
    found = measured(*files(tmp_path), topk=2)
    assert metric_label("mrr", found.topk) == "mrr@2"
    assert found.per_query["t1"]["mrr"] == 0.0
    assert found.per_query["t2"]["recall_5"] == pytest.approx(1 / 3, abs=1e-9)


def test_equal_in_single_precision_is_a_tie():
    hits = [Hit(doc_id="a", score=1.0000000001), Hit(doc_id="b", score=1.0)]
    assert [hit.doc_id for hit in trec_eval_order(hits)] == ["b", "a"]
    hits = [Hit(doc_id="a", score=1.000001), Hit(doc_id="b", score=1.0)]
    assert [hit.doc_id for hit in trec_eval_order(hits)] == ["a", "b"]


def test_turns_of_a_split_are_what_counts(tmp_path: Path):
    turns = [
        Turn(qid=qid, conv_id=conv, turn=number, split="test", question="?")
        for qid, conv, number in (("t1", "a", 1), ("t2", "a", 2), ("t3", "b", 1))
    ]
    found = measured(*files(tmp_path), turns=turns, switches={"t2": True})
    assert found.metrics["mrr"] == pytest.approx((1 / 3 + 1) / 3, abs=1e-9)
    assert found.mrr_interval is not None
    assert [s.topic_switch for s in found.searched] == [None, True, None]
    stranger = Turn(qid="t9", conv_id="a", turn=3, split="test", question="?")
    with pytest.raises(DataError, match="'t9', which has no line in the qrels"):
        measured(*files(tmp_path), turns=[*turns, stranger])


def public_run(folder: Path) -> tuple[Path, Path]:
    """Sixty queries, as another program might write them: unsorted lines, ties, strange ranks and
    scores, runs of up to 130 passages, graded judgements, queries in only one of the files."""
    rng = random.Random(3)
    lines, judgements = [], []
    for number in range(60):
        docs = [f"{rng.choice('abX')}{i}-é" for i in rng.sample(range(400), rng.randint(1, 130))]
        if number % 9:
            lines += [
                f"q{number} Q0 {doc} {rng.randint(0, 5)} {score:.9f} x"
                for doc in docs
                for score in [rng.choice([rng.random(), 0.5, 7e-4])]
            ]
        if number % 7:
            golds = rng.sample(docs, min(len(docs), rng.randint(1, 6)))
            grades = [rng.randint(0, 3) for _ in golds] or [1]
            judgements += [
                f"q{number} 0 {doc} {grade}" for doc, grade in zip(golds, grades, strict=True)
            ]
            judgements.append(f"q{number} 0 never-found 1")
    rng.shuffle(lines)
    return files(folder, "\n".join(lines), "\n".join(judgements))


def second_opinion(run: Path, qrels: Path) -> dict[str, dict[str, float]]:
    """trec_eval's definitions from its documentation, sharing no code with the project."""
    judged: dict[str, dict[str, int]] = {}
    for line in qrels.read_text().split("\n"):
        qid, _, doc, grade = line.split()
        judged.setdefault(qid, {})[doc] = int(grade)
    scored: dict[str, list[tuple[float, bytes]]] = {}
    for line in run.read_text().split("\n"):
        qid, _, doc, _, score, _ = line.split()
        [single] = struct.unpack("f", struct.pack("f", float(score)))
        scored.setdefault(qid, []).append((single, doc.encode()))
    found = {}
    for qid, grades in judged.items():
        docs = [doc.decode() for _, doc in sorted(scored.get(qid, []))[::-1]]
        relevant = [doc for doc in docs if grades.get(doc, 0) >= 1]
        num_relevant = sum(grade >= 1 for grade in grades.values())
        ideal = sorted(grades.values())[::-1][:3]
        gains = [grades.get(doc, 0) for doc in docs[:3]]
        dcg, best = (
            math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(values))
            for values in (gains, ideal)
        )
        found[qid] = {"mrr": 1 / (docs.index(relevant[0]) + 1) if relevant else 0.0}
        found[qid]["ndcg_cut_3"] = dcg / best
        for k in (5, 10, 20, 100):
            hits = sum(doc in relevant for doc in docs[:k])
            found[qid][f"recall_{k}"] = hits / num_relevant
    return found


def test_aggregates_of_a_public_run_are_reproduced(tmp_path: Path):
    run, qrels = public_run(tmp_path)
    expected = second_opinion(run, qrels)
    found = measured(run, qrels)
    assert found.per_query.keys() == expected.keys()
    for qid, values in expected.items():
        assert found.per_query[qid] == pytest.approx(values, abs=1e-9)
    for name in METRICS:
        mean = math.fsum(values[name] for values in expected.values()) / len(expected)
        assert found.metrics[name] == pytest.approx(mean, abs=1e-9)


def test_trec_eval_reads_the_same_files_to_the_same_numbers(tmp_path: Path):
    run, qrels = public_run(tmp_path)
    with run.open() as lines:
        theirs_run = pytrec_eval.parse_run(lines)
    with qrels.open() as lines:
        theirs_qrels = pytrec_eval.parse_qrel(lines)
    names = {"recip_rank", "ndcg_cut_3", "recall_100"}
    theirs = pytrec_eval.RelevanceEvaluator(theirs_qrels, names).evaluate(theirs_run)
    found = measured(run, qrels, paper_compat=True)
    assert found.num_averaged == len(theirs)
    for ours, name in (("mrr", "recip_rank"), ("ndcg_cut_3",) * 2, ("recall_100",) * 2):
        mean = math.fsum(values[name] for values in theirs.values()) / len(theirs)
        assert found.metrics[ours] == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("t1 Q0 d1 1 7.5\n", r"run:1: expected 6 columns .*found 5"),
        ("t1 Q0 d1 1 high x\n", "run:1: score must be a number, found 'high'"),
        ("t1 Q0 d1 1 nan x\n", "run:1: score must be a number"),
        ("t1 Q0 d1 1 2 x\nt1 Q0 d1 2 1 x\n", "run:2: passage 'd1' of qid 't1' is ranked twice"),
        ("", "the run file holds no line"),
        ("z Q0 d1 1 1 x\n", "none of the 1 queries of the run"),
    ],
)
def test_bad_runs_are_named(tmp_path: Path, run: str, said: str):
    with pytest.raises(DataError, match=said):
        measured(*files(tmp_path, run))


def test_a_depth_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="1 or more for a run file"):
        measured(*files(tmp_path), topk=0)
