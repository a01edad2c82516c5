"""Relevant passages that the index does not have are counted and said, wherever that can be known,
and an evaluation that fails leaves no half of itself."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rewriting import some_turns

from convsearch.cli.evaluate import show
from convsearch.errors import DataError, RefusedError, RetrieverError
from convsearch.files import appearing_together, write_run
from convsearch.passages import write_passages
from convsearch.pipeline.evaluation import Evaluation, evaluate_queries, evaluate_searched
from convsearch.pipeline.evaluation_files import write_evaluation
from convsearch.pipeline.run_files import evaluate_run
from convsearch.pipeline.searched import Searched
from convsearch.retrieval.known import CHUNK_IDS, unknown_ids
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Hit, Passage

TURNS = some_turns(4, split="test")
PASSAGES = [Passage(doc_id=f"d{i}", title="", text=t.question) for i, t in enumerate(TURNS)]
QRELS = {t.qid: {f"d{i}": 1} for i, t in enumerate(TURNS)}
QUERIES = {t.qid: t.question for t in TURNS}
RETRIEVER = InMemoryRetriever(PASSAGES)


class Stranger:
    """A server of another program: it refuses ids, or is down, and says no more."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def ranks(self, queries: Sequence[str], golds: object, topk: int) -> list[int | None]:
        raise self._error

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        return RETRIEVER.search(queries, topk)

    def passages(self, doc_ids: Sequence[str]) -> list[Passage]:
        return RETRIEVER.passages(doc_ids)


def with_unknown(*qids: str) -> dict[str, dict[str, int]]:
    return {qid: {f"un-{qid}": 1, **QRELS[qid]} if qid in qids else QRELS[qid] for qid in QRELS}


def test_unknown_golds_are_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qrels = with_unknown(TURNS[1].qid, TURNS[3].qid)
    qrels[TURNS[2].qid] = {**qrels[TURNS[2].qid], "not relevant, not asked": 0}
    found = evaluate_queries(TURNS, QUERIES, RETRIEVER, qrels)
    record = write_evaluation(tmp_path, found, tag="t", settings={})
    assert (record["golds"], record["gold_unknown"]) == (6, 2)
    assert json.loads((tmp_path / "metrics.json").read_text())["gold_unknown"] == 2
    show(found, tmp_path)
    said = f"2 of 6 relevant passages are not in the index (the first is 'un-{TURNS[1].qid}')"
    assert said in capsys.readouterr().out


def test_nothing_is_said_where_all_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate_queries(TURNS, QUERIES, RETRIEVER, QRELS)
    assert found.golds is not None
    assert (found.golds.num_golds, found.golds.unknown) == (4, ())
    show(found, tmp_path)
    assert "not in the index" not in capsys.readouterr().out


def test_an_index_of_another_corpus_is_refused() -> None:
    qrels = {qid: {f"un-{qid}": 1} for qid in QRELS}
    with pytest.raises(DataError, match="none of the 4 relevant passages that were looked up is"):
        evaluate_queries(TURNS, QUERIES, RETRIEVER, qrels)


def test_a_server_that_does_not_say_which_leaves_the_count_open(tmp_path: Path) -> None:
    found = evaluate_queries(
        TURNS, QUERIES, Stranger(RefusedError("an id is unknown", status=422)), QRELS
    )
    record = write_evaluation(tmp_path, found, tag="t", settings={})
    assert (record["golds"], record["gold_unknown"]) == (None, None)


def test_a_server_that_is_down_is_no_unknown_id() -> None:
    with pytest.raises(RetrieverError, match="down"):
        evaluate_queries(TURNS, QUERIES, Stranger(RetrieverError("down")), QRELS)


def test_many_ids_are_asked_in_several_questions() -> None:
    ids = [f"n{i}" for i in range(CHUNK_IDS + 5)]
    assert unknown_ids(RETRIEVER, ["d0", *ids, "d1", ids[0]]) == ids


def test_a_run_file_is_checked_against_the_corpus_of_its_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = {t.qid: [Hit(doc_id=f"d{i}", score=1.0)] for i, t in enumerate(TURNS)}
    qrels = with_unknown(TURNS[0].qid)
    corpus = tmp_path / "corpus.jsonl"
    assert evaluate_run(run, qrels, TURNS, corpus=corpus).golds is None
    write_passages(corpus, PASSAGES)
    found = evaluate_run(run, qrels, TURNS, corpus=corpus)
    assert found.golds is not None
    assert found.golds.unknown == (f"un-{TURNS[0].qid}",)
    assert evaluate_run(run, qrels).golds is None
    monkeypatch.setattr("convsearch.pipeline.run_files.MAX_CORPUS_BYTES", 10)
    assert evaluate_run(run, qrels, TURNS, corpus=corpus).golds is None


def strange_ids() -> Evaluation:
    """Hits as a server of another program may send them."""
    retriever = InMemoryRetriever([*PASSAGES, Passage(doc_id="a b", title="", text="zebra")])
    searched = [Searched(qid=t.qid, query="zebra", conv_id=t.conv_id) for t in TURNS]
    return evaluate_searched(searched, retriever, QRELS)


def test_an_evaluation_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"passage 'a b' .*cannot stand in a TREC run"):
        write_evaluation(tmp_path / "deep" / "out", strange_ids(), tag="t", settings={})
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_that_fails_at_its_last_file_leaves_what_was_there(tmp_path: Path) -> None:
    good = evaluate_queries(TURNS, QUERIES, RETRIEVER, QRELS)
    write_evaluation(tmp_path, good, tag="first", settings={})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert sorted(before) == ["metrics.json", "per_query.jsonl", "run.json", "run.trec"]
    worse = evaluate_queries(TURNS, {t.qid: "x" for t in TURNS}, RETRIEVER, QRELS)
    loop: dict[str, object] = {}
    loop["itself"] = loop  # the passport, written last, cannot be
    with pytest.raises(ValueError, match="Circular"):
        write_evaluation(tmp_path, worse, tag="t", settings=loop)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_files_appear_together(tmp_path: Path) -> None:
    with appearing_together(tmp_path / "out") as folder:
        write_run(folder / "run.trec", {}, tag="t")
        assert [file.name for file in (tmp_path / "out").iterdir()] == [folder.name]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["run.trec"]
