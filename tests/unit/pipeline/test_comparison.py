"""Comparisons of evaluation folders, against figures worked out by hand."""

import json
from pathlib import Path

import pytest
from evaluation_folders import write_folder

from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.eval import METRICS, bootstrap_interval
from convsearch.pipeline.comparison import Method, check_comparable, compare
from convsearch.pipeline.evaluation_folder import read_evaluation
from convsearch.report.comparison_page import render_comparison

OLD = {"a_1": 1, "a_2": None, "b_1": 4, "b_2": 2, "c_1": None}
NEW = {"a_1": 1, "a_2": 1, "b_1": 2, "b_2": 4, "c_1": 1}


def method(folder: Path, ranks: dict, name: str, **settings) -> Method:
    return Method(name=name, seeds=(read_evaluation(write_folder(folder, ranks, **settings)),))


def test_means_differences_and_counts_by_hand(tmp_path: Path):
    old, new = method(tmp_path / "old", OLD, "old"), method(tmp_path / "new", NEW, "new")
    result = compare([old, new], metrics=["mrr", "recall_5"], num_changes=2)
    assert [r.means["mrr"] for r in result.methods] == pytest.approx([1.75 / 5, 3.75 / 5])
    mrr, recall = result.pairs
    assert (mrr.method, mrr.against, mrr.metric) == ("new", "old", "mrr")
    assert mrr.difference == pytest.approx(2 / 5)  # 0, +1, +1/4, -1/4, +1
    assert (mrr.wins, mrr.ties, mrr.losses) == (3, 1, 1)
    assert (recall.wins, recall.ties, recall.losses) == (2, 3, 0)
    # sums by conversation: +1, 0, +1. Of the 8 flips, +,.,+ and -,.,- reach 2: 4 of 8.
    assert mrr.p == recall.p == 0.5
    assert mrr.p_holm == recall.p_holm == 1.0
    by_conv = {"a": [0, 1], "b": [0.25, -0.25], "c": [1]}
    assert mrr.interval == bootstrap_interval(by_conv, seed=0)
    assert (result.num_paired, result.num_units) == (5, 3)


def test_one_conversation_has_no_interval(tmp_path: Path):
    old = method(tmp_path / "old", {"a_1": 1, "a_2": 4}, "old")
    new = method(tmp_path / "new", {"a_1": 1, "a_2": 1}, "new")
    result = compare([old, new], metrics=["mrr"])
    assert [r.mrr_interval for r in result.methods] == [None, None]
    assert result.pairs[0].interval is None
    assert "  -  " in render_comparison(result, "text")
    assert "pair,new,old,mrr,0.375,,,,,1.0,1.0,1,1,0," in render_comparison(result, "csv")


def test_the_other_order_turns_every_sign_and_no_p(tmp_path: Path):
    old, new = method(tmp_path / "old", OLD, "old"), method(tmp_path / "new", NEW, "new")
    one, other = compare([old, new]), compare([new, old])
    for a, b in zip(one.pairs, other.pairs, strict=True):
        assert a.difference == -b.difference
        assert (a.wins, a.losses, a.p, a.p_holm) == (b.losses, b.wins, b.p, b.p_holm)
    shuffled = dict(reversed(NEW.items()))
    moved = method(tmp_path / "moved", shuffled, "new")
    assert compare([old, moved]).pairs == one.pairs


def test_largest_changes_with_question_queries_and_ranks(tmp_path: Path):
    old, new = method(tmp_path / "old", OLD, "old"), method(tmp_path / "new", NEW, "new")
    result = compare([old, new], num_changes=2, questions={"a_2": "and then?"})
    assert [(c.qid, c.gain) for c in result.changes] == [
        ("a_2", 1.0), ("c_1", 1.0), ("b_2", -0.25),
    ]  # fmt: skip
    first = result.changes[0]
    assert first.question == "and then?"
    assert first.queries == ("query of new for a_2", "query of old for a_2")
    assert first.ranks == ((1,), (None,))


def test_seeds_are_averaged_by_question_before_they_are_paired(tmp_path: Path):
    old = method(tmp_path / "old", OLD, "old")
    seeds = [
        read_evaluation(write_folder(tmp_path / "s1", {**OLD, "a_2": 1})),
        read_evaluation(write_folder(tmp_path / "s2", {**OLD, "a_2": 2, "c_1": 2})),
    ]
    result = compare([old, Method(name="new", seeds=tuple(seeds))], metrics=["mrr"])
    new = result.methods[1]
    means = [2.75 / 5, 2.75 / 5]
    assert new.means["mrr"] == pytest.approx(sum(means) / 2)
    assert new.sds is not None
    assert new.sds["mrr"] == pytest.approx(0.0)
    assert new.sds["recall_5"] == pytest.approx(0.2 / 2**0.5)  # 0.8 and 1.0
    (pair,) = result.pairs
    assert pair.difference == pytest.approx((0.75 + 0.25) / 5)
    assert (pair.wins, pair.ties, pair.losses) == (2, 3, 0)
    assert result.changes[0].ranks == ((1, 2), (None,))


def test_all_pairs_or_those_with_one_method(tmp_path: Path):
    made = [method(tmp_path / n, OLD, n) for n in ("a", "b", "c")]
    pairs = [(p.method, p.against) for p in compare(made, metrics=["mrr"]).pairs]
    assert pairs == [("b", "a"), ("c", "a"), ("c", "b")]
    pairs = [(p.method, p.against) for p in compare(made, metrics=["mrr"], against="b").pairs]
    assert pairs == [("a", "b"), ("c", "b")]
    assert len(compare(made, metrics=METRICS).pairs) == 18


def test_paper_compat_pairs_what_every_folder_answered(tmp_path: Path):
    settings = {"convention": "paper_compat"}
    old = method(tmp_path / "old", OLD, "old", status={"a_2": "malformed"}, **settings)
    new = method(tmp_path / "new", NEW, "new", status={"c_1": "failed"}, **settings)
    result = compare([old, new], metrics=["mrr"])
    assert result.num_paired == 3
    assert result.pairs[0].difference == pytest.approx(0.0)
    assert result.methods[0].means["mrr"] == pytest.approx(1.75 / 4)
    assert result.methods[0].num_not_ok == 1
    nothing = dict.fromkeys(OLD, "failed") | {"a_1": "ok"}
    silent = method(tmp_path / "silent", OLD, "silent", status=nothing, **settings)
    lost = method(tmp_path / "lost", OLD, "lost", status={"a_1": "failed"}, **settings)
    with pytest.raises(DataError, match="no question was answered in every folder"):
        compare([silent, lost])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dataset": "other"}, r"data set \(toy, other\)"),
        ({"split": "dev"}, r"split \(test, dev\)"),
        ({"topk": 200}, r"different depths \(100, 200\)"),
        ({"convention": "paper_compat"}, "different conventions"),
        ({"relevance_level": 2}, r"relevant from different grades on \(1, 2\)"),
        ({"engine": "runs/other"}, "different engines"),
        ({"inputs": {"data/qrels.trec": "22"}}, r"relevance judgements \(11, 22\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, changed: dict, said: str):
    settings = {"inputs": {"d/qrels.trec.gz": "11"}}
    one = method(tmp_path / "one", OLD, "one", **settings)
    check_comparable([one, method(tmp_path / "same", NEW, "same", **settings)])
    other = method(tmp_path / "other", NEW, "other", **{**settings, **changed})
    with pytest.raises(ConfigError, match=said) as caught:
        check_comparable([one, other])
    assert str(tmp_path / "one") in str(caught.value)
    if "engine" in changed:
        check_comparable([one, other], allow_different_engines=True)


def test_an_engine_is_known_by_what_it_says_of_itself(tmp_path: Path):
    """One index at two addresses is one engine; two indexes at one address are not."""
    one = method(tmp_path / "one", OLD, "one", engine="runs/a", fingerprint="1111")
    moved = method(tmp_path / "moved", NEW, "moved", engine="http://b", fingerprint="1111")
    check_comparable([one, moved])
    rebuilt = method(tmp_path / "rebuilt", NEW, "rebuilt", engine="runs/a", fingerprint="2222")
    with pytest.raises(ConfigError, match=r"different engines \(bm25 1111, bm25 2222\)"):
        check_comparable([one, rebuilt])


def test_other_questions_are_refused(tmp_path: Path):
    one = method(tmp_path / "one", OLD, "one")
    for ranks in ({**OLD, "d_1": 1}, {q: r for q, r in OLD.items() if q != "b_2"}):
        other = method(tmp_path / f"n{len(ranks)}", ranks, "other")
        with pytest.raises(ConfigError, match=r"different questions .*is in one only"):
            check_comparable([one, other])


def test_wrong_names_are_sentences(tmp_path: Path):
    one = method(tmp_path / "one", OLD, "one")
    for settings, said in (
        ({"against": "two"}, "no method 'two'"),
        ({"metrics": ["map"]}, "metrics must be"),
        ({"metrics": ["mrr", "mrr"]}, "metrics must be"),
    ):
        with pytest.raises(ConfigError, match=said):
            compare([one, method(tmp_path / "other", OLD, "other")], **settings)
    with pytest.raises(ConfigError, match="two methods are called 'one'"):
        compare([one, one])


def test_unknown_conversations_need_the_turn_as_unit(tmp_path: Path):
    folders = [write_folder(tmp_path / n, OLD) for n in ("x", "y")]
    for folder in folders:
        path = folder / "per_query.jsonl"
        lines = [json.loads(line) | {"conv_id": None} for line in path.read_text().splitlines()]
        path.write_text("\n".join(map(json.dumps, lines)))
    made = [Method(name=f.name, seeds=(read_evaluation(f),)) for f in folders]
    with pytest.raises(DataError, match="--unit turn"):
        compare(made)
    assert compare(made, unit="turn").num_units == 5


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("metrics.json", lambda t: t[:20], "not valid JSON"),
        ("metrics.json", lambda t: t.replace('"mrr": 0.35', '"mrr": 0.45'), "mrr is 0.450000 in"),
        ("metrics.json", lambda t: t.replace('"num_queries": 5', '"num_queries": 6'), "counts 6"),
        ("metrics.json", lambda t: t.replace('"mrr_depth"', '"depth"'), '"mrr_depth" is missing'),
        ("run.json", lambda t: "[]", "expected a JSON object"),
        ("per_query.jsonl", lambda t: "", "the file is empty"),
        ("per_query.jsonl", lambda t: t + t, "qid 'a_1' occurs twice"),
        ("per_query.jsonl", lambda t: t.replace('"mrr": 1.0', '"mrr": "1"'), "must be a number"),
        ("per_query.jsonl", lambda t: t.replace('"rank": 1', '"rank": 1.5'), "whole number"),
        ("per_query.jsonl", lambda t: t[:-30], "not valid JSON"),
    ],
)
def test_damaged_folders_are_named(tmp_path: Path, name: str, spoil, said: str):
    folder = write_folder(tmp_path / "one", OLD)
    path = folder / name
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=said) as caught:
        read_evaluation(folder)
    assert str(folder) in str(caught.value)


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(MissingFileError, match="no such folder"):
        read_evaluation(tmp_path / "none")
    folder = write_folder(tmp_path / "one", OLD)
    (folder / "run.json").unlink()
    with pytest.raises(MissingFileError, match=r"run\.json: no such file"):
        read_evaluation(folder)
