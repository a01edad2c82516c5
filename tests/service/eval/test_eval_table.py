"""`convsearch eval` on whole tables, run files and every kind of search engine."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from live_server import serving
from lucene_case import needs_lucene
from small_corpus import make_tiny_ance
from toy_domain import write_toy_dataset, write_toy_index

from convsearch.cli import eval_doors
from convsearch.cli.main import main
from convsearch.files import Run, read_jsonl, read_qrels, read_run, write_rewrites, write_turn_info
from convsearch.types import Rewrite
from retriever_server.app import create_app
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.backends.dense import DenseBackend
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.indexing.dense import build_dense_index
from retriever_server.indexing.lucene import build_lucene_index


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with topic switches, its index, and rewrites that hold the question twice."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy_dataset(folder / "data")
    write_toy_index(folder / "index", folder / "data")
    turns = [record for _, record in read_jsonl(folder / "data" / "turns.jsonl")]
    write_turn_info(
        folder / "data" / "turn_info.jsonl",
        {str(t["qid"]): None if t["turn"] == 1 else t["turn"] == 2 for t in turns},
    )
    write_rewrites(
        folder / "zero.jsonl",
        [
            Rewrite(qid=str(t["qid"]), status="ok", text=f"{t['question']}", response="", seed=0)
            for t in turns
            if t["split"] == "test"
        ],
    )
    return folder


def convsearch(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["convsearch", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def metrics(folder: Path) -> dict[str, object]:
    return json.loads((folder / "metrics.json").read_text())


def test_one_command_makes_the_whole_table(toy: Path, tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "table"
    common = ["eval", "--dataset", toy / "data", "--split", "test", "--index", toy / "index"]
    code = convsearch(
        monkeypatch, *common, "--rewrites", f"policy={toy / 'zero.jsonl'}", "--baseline", "raw",
        "--baseline", "history:1", "--baseline", "history", "--prompted",
        f"zero={toy / 'zero.jsonl'}", "--union", "raw+zero", "--out", out,
    )  # fmt: skip
    assert code == 0
    printed = capsys.readouterr().out
    names = ["raw", "history:1", "history", "zero", "raw+zero.text", "raw+zero.rrf", "policy"]
    shown = [line.split(" | ")[0][2:] for line in printed.splitlines() if "| no |" in line]
    assert shown == names[:-1]
    assert (out / "table.md").read_text().rstrip() in printed
    table = json.loads((out / "table.json").read_text())
    assert [method["name"] for method in table["methods"]] == names
    for method in table["methods"]:
        folder = out / method["folder"]
        found = metrics(folder)
        assert method["metrics"] == found["metrics"]
        assert set(found["by_turn"]) == {"1", "2", "3"}  # pyright: ignore[reportArgumentType]
        assert set(found["by_topic_switch"]) == {"first", "same", "switch"}  # pyright: ignore[reportArgumentType]
        rows = [record for _, record in read_jsonl(folder / "per_query.jsonl")]
        assert [row["topic_switch"] for row in rows[:3]] == [None, True, False]
        assert all(row["query_words"] == len(str(row["query"]).split()) for row in rows)
        passport = json.loads((folder / "run.json").read_text())["settings"]
        assert (passport["method"], passport["trained"]) == (method["name"], method["trained"])
        assert passport["engine"]["engine"] == "bm25"
    assert json.loads((out / "run.json").read_text())["settings"]["methods"] == names
    assert convsearch(monkeypatch, *common, "--baseline", "raw", "--out", tmp_path / "one") == 0
    assert metrics(tmp_path / "one") == metrics(out / "raw")


def test_a_run_file_gives_the_figures_of_the_evaluation_that_wrote_it(
    toy: Path, tmp_path: Path, monkeypatch, capsys
):
    data, first, again = toy / "data", tmp_path / "first", tmp_path / "again"
    base = ["eval", "--dataset", data, "--split", "test", "--index", toy / "index"]
    assert convsearch(monkeypatch, *base, "--baseline", "history", "--out", first) == 0
    run = ["eval", "--run", first / "run.trec", "--topk", 100]
    code = convsearch(monkeypatch, *run, "--dataset", data, "--split", "test", "--out", again)
    assert code == 0
    kept = ("metrics", "intervals_95", "by_turn", "by_topic_switch", "mrr_depth")
    ours, theirs = metrics(first), metrics(again)
    assert {name: ours[name] for name in kept} == {name: theirs[name] for name in kept}
    assert read_run(again / "run.trec") == read_run(first / "run.trec")
    capsys.readouterr()
    other = [*run, "--qrels", data / "qrels.trec", "--paper-compat", "--out", again]
    assert convsearch(monkeypatch, *other) == 2
    assert "paper_compat (there False, now True)" in capsys.readouterr().err
    assert metrics(again) == theirs
    assert convsearch(monkeypatch, *other, "--fresh") == 0
    printed = capsys.readouterr().out
    assert "missing 12" in printed
    assert "9 averaged: paper_compat: mean over the queries that the run holds" in printed
    assert metrics(again)["metrics"] == pytest.approx(ours["metrics"], abs=1e-12)
    before = (first / "run.trec").read_bytes()
    code = convsearch(monkeypatch, *run, "--qrels", data / "qrels.trec", "--out", first)
    assert code == 2
    assert "would be written over" in capsys.readouterr().err
    assert (first / "run.trec").read_bytes() == before


def evaluated(monkeypatch: pytest.MonkeyPatch, toy: Path, out: Path, *engine: object) -> dict:
    common = ["eval", "--dataset", toy / "data", "--split", "test", "--baseline", "history"]
    assert convsearch(monkeypatch, *common, *engine, "--out", out) == 0
    return metrics(out)["metrics"]  # pyright: ignore[reportReturnType]


def test_a_server_and_an_index_give_the_same_figures(toy: Path, tmp_path: Path, monkeypatch):
    near = evaluated(monkeypatch, toy, tmp_path / "near", "--index", toy / "index")
    qrels = read_qrels(toy / "data" / "qrels.trec")
    with serving(create_app(Bm25Backend.load(toy / "index"), qrels=qrels)) as url:
        assert near == evaluated(monkeypatch, toy, tmp_path / "far", "--retriever-url", url)
        door = [
            "--query_file", toy / "data" / "turns.jsonl", "--test_type", "history:1",
            "--gold_qrel_file_path", toy / "data" / "qrels.trec", "--retriever_url", url,
            "--retrieval_output_path", tmp_path / "door", "--max_query_words", 3,
        ]  # fmt: skip
        eval_doors.bm25_main([str(each) for each in door])
    engines = [
        json.loads((tmp_path / name / "run.json").read_text())["settings"]["engine"]
        for name in ("near", "far", "door")
    ]
    assert engines[0]["fingerprint"]
    assert engines[0] == engines[1] == engines[2]
    assert convsearch(monkeypatch, "compare", tmp_path / "near", tmp_path / "far") == 0
    rows = [record for _, record in read_jsonl(tmp_path / "door" / "per_query.jsonl")]
    assert len(rows) == 21
    assert all(row["query_words"] == 3 for row in rows)
    assert {row["topic_switch"] for row in rows} == {None, True, False}


def test_the_relevant_grade_reaches_every_way_of_evaluating(
    toy: Path, tmp_path: Path, monkeypatch, capsys
):
    """All judgements of the toy have grade 1: from 2 on nothing is relevant, but NDCG stays."""
    data, level = toy / "data", ["--relevance-level", 2]
    base = ["eval", "--dataset", data, "--split", "test"]
    index = ["--index", toy / "index", "--baseline", "history"]
    assert convsearch(monkeypatch, *base, *index, "--out", tmp_path / "one") == 0
    assert convsearch(monkeypatch, *base, *index, *level, "--out", tmp_path / "two") == 0
    run = ["--run", tmp_path / "one" / "run.trec", "--topk", 100, "--out", tmp_path / "of-run"]
    assert convsearch(monkeypatch, *base, *run, *level) == 0
    table = ["--prompted", f"zero={toy / 'zero.jsonl'}", "--out", tmp_path / "table"]
    assert convsearch(monkeypatch, *base, *index, *table, *level) == 0
    door = [
        "--query_file", data / "turns.jsonl", "--test_type", "history", "--gold_qrel_file_path",
        data / "qrels.trec", "--index_dir_path", toy / "index", "--retrieval_output_path",
        tmp_path / "door", "--rel_threshold", 2,
    ]  # fmt: skip
    eval_doors.bm25_main([str(each) for each in door])
    plain = metrics(tmp_path / "one")["metrics"]
    assert plain["mrr"] > 0.1  # pyright: ignore
    for name in ("two", "of-run", "table/history", "door"):
        found = metrics(tmp_path / name)
        assert found["relevance_level"] == 2
        assert found["metrics"]["mrr"] == found["metrics"]["recall_100"] == 0.0  # pyright: ignore
        if name != "door":  # which evaluates all splits
            assert found["metrics"]["ndcg_cut_3"] == plain["ndcg_cut_3"]  # pyright: ignore
    capsys.readouterr()
    assert convsearch(monkeypatch, "compare", tmp_path / "one", tmp_path / "two") == 2
    assert "different grades on (1, 2)" in capsys.readouterr().err
    assert convsearch(monkeypatch, "compare", tmp_path / "of-run", tmp_path / "two",
                      "--allow-different-engines") == 0  # fmt: skip
    assert "relevant from grade 2 on" in capsys.readouterr().out


def test_two_indexes_are_fused_with_bm25_and_dense(toy: Path, tmp_path: Path, monkeypatch):
    corpus = toy / "data" / "corpus.jsonl"
    encoder = make_tiny_ance(tmp_path / "encoder")
    build_dense_index(corpus, tmp_path / "dense", encoder_path=encoder)
    dense = ["--index", tmp_path / "dense", "--encoder", encoder]
    alone = evaluated(monkeypatch, toy, tmp_path / "alone", *dense)
    both = evaluated(monkeypatch, toy, tmp_path / "both", *dense, "--fuse-with", toy / "index")
    turned = ["--index", toy / "index", "--fuse-with", tmp_path / "dense", "--encoder", encoder]
    assert both == evaluated(monkeypatch, toy, tmp_path / "turned", *turned)
    assert both["mrr"] != alone["mrr"]
    settings = json.loads((tmp_path / "both" / "run.json").read_text())["settings"]
    assert settings["engine"]["engine"] == "hybrid"
    door = [
        "--index_dir_path", toy / "index", "--fuse_with", tmp_path / "dense", "--encoder_path",
        encoder, "--query_file", toy / "zero.jsonl", "--turns_path", toy / "data" / "turns.jsonl",
        "--gold_qrel_file_path", toy / "data" / "qrels.trec", "--retrieval_output_path",
        tmp_path / "door",
    ]  # fmt: skip
    eval_doors.bm25_main([str(each) for each in door])
    assert metrics(tmp_path / "door")["num_queries"] == 9


def test_concatenations_are_read_further_by_dense_engines_near_and_far(
    toy: Path, tmp_path: Path, monkeypatch
):
    encoder = make_tiny_ance(tmp_path / "encoder")
    build_dense_index(toy / "data" / "corpus.jsonl", tmp_path / "dense", encoder_path=encoder)
    dense = ["--index", tmp_path / "dense", "--encoder", encoder]
    run = evaluated_run(monkeypatch, toy, tmp_path / "whole", *dense)
    assert run == evaluated_run(
        monkeypatch, toy, tmp_path / "not-a-query", *dense, "--max-query-tokens", 3
    )
    few = ["--max-concat-tokens", 4]
    cut = evaluated_run(monkeypatch, toy, tmp_path / "cut", *dense, *few)
    assert cut != run
    with serving(create_app(DenseBackend.load(tmp_path / "dense", encoder))) as url:
        far = ["--retriever-url", url]
        assert run == evaluated_run(monkeypatch, toy, tmp_path / "far", *far)
        assert cut == evaluated_run(monkeypatch, toy, tmp_path / "far-cut", *far, *few)


def evaluated_run(monkeypatch: pytest.MonkeyPatch, toy: Path, out: Path, *engine: object) -> Run:
    evaluated(monkeypatch, toy, out, *engine)
    return read_run(out / "run.trec")


@needs_lucene
def test_lucene_takes_k1_and_b_when_it_is_searched(toy: Path, tmp_path: Path, monkeypatch):
    corpus = toy / "data" / "corpus.jsonl"
    build_lucene_index(corpus, tmp_path / "lucene")
    build_bm25_index(corpus, tmp_path / "bm25", k1=2.0, b=0.9)
    lucene = ["--index", tmp_path / "lucene", "--k1", 2.0, "--b", 0.9]
    ours = evaluated(monkeypatch, toy, tmp_path / "ours", "--index", tmp_path / "bm25")
    assert ours == evaluated(monkeypatch, toy, tmp_path / "theirs", *lucene)
    door = [
        "--index_dir_path", tmp_path / "lucene", "--bm25_k1", 2.0, "--bm25_b", 0.9,
        "--query_file", toy / "data" / "turns.jsonl", "--test_type", "history",
        "--gold_qrel_file_path", toy / "data" / "qrels.trec", "--retrieval_output_path",
        tmp_path / "door",
    ]  # fmt: skip
    eval_doors.bm25_main([str(each) for each in door])
    settings = json.loads((tmp_path / "door" / "run.json").read_text())["settings"]
    assert (settings["k1"], settings["b"]) == (2.0, 0.9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--baseline", "raw"], "name the data set with --dataset"),
        (["--baseline", "row", "--dataset", "{toy}/data", "--index", "{toy}/index"],
         "unknown baseline 'row'"),
        (["--baseline", "raw", "--baseline", "history", "--dataset", "{toy}/data", "--index",
          "{toy}/data"], "{toy}/data: not an index folder"),
        (["--baseline", "raw", "--rewrites", "{toy}/zero.jsonl", "--dataset", "{toy}/data",
          "--index", "{toy}/index"], "as NAME=FILE"),
        (["--baseline", "raw", "--dataset", "{toy}/data", "--index", "{toy}/index", "--k1", "1"],
         "are for Lucene indexes"),
        (["--baseline", "raw", "--dataset", "{toy}/data", "--retriever-url", "http://127.0.0.1:1",
          "--fuse-with", "{toy}/index"], "leave them out beside its address"),
        (["--baseline", "raw", "--dataset", "{toy}/data", "--index", "{toy}/index",
          "--max-query-words", "0"], "1 word or more"),
        (["--run", "{toy}/none", "--qrels", "{toy}/data/qrels.trec"], "{toy}/none: no such file"),
        (["--run", "{toy}/zero.jsonl", "--qrels", "{toy}/data/qrels.trec"],
         "zero.jsonl:1: expected 6 columns"),
        (["--run", "{toy}/zero.jsonl"], "--run needs the judgements"),
        (["--run", "{toy}/zero.jsonl", "--qrels", "{toy}/data/qrels.trec", "--baseline", "raw"],
         "--run is searched already"),
    ],
)  # fmt: skip
def test_bad_calls_are_a_sentence_and_leave_nothing(
    arguments: list[str], said: str, toy: Path, tmp_path: Path, monkeypatch, capsys
):
    filled = [each.format(toy=toy) for each in arguments]
    assert convsearch(monkeypatch, "eval", *filled, "--split", "test", "--out", tmp_path / "e") == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert said.format(toy=toy) in error
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_of_other_settings_is_refused_and_another_commands_stays(
    toy: Path, tmp_path: Path, monkeypatch, capsys
):
    out = tmp_path / "out"
    base = ["eval", "--dataset", toy / "data", "--split", "test", "--index", toy / "index"]

    def refused(*words: object) -> str:
        before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
        assert convsearch(monkeypatch, *words, "--out", out) == 2
        assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
        return capsys.readouterr().err

    raw = [*base, "--baseline", "raw"]
    assert convsearch(monkeypatch, *raw, "--out", out) == 0
    assert convsearch(monkeypatch, *raw, "--out", out) == 0, "the same is made again"
    capsys.readouterr()
    assert "topk (there 100, now 200)" in refused(*raw, "--topk", 200)
    assert "tag (there 'raw', now 'history')" in refused(*base, "--baseline", "history")
    assert "what another command made (eval), not eval table" in refused(
        *raw, "--baseline", "history", "--fresh"
    )
    moved = shutil.copytree(toy / "index", tmp_path / "moved")
    elsewhere = [*base[:-1], moved, "--baseline", "raw"]
    assert convsearch(monkeypatch, *elsewhere, "--out", out) == 0, "the same index elsewhere"
    assert convsearch(monkeypatch, *raw, "--topk", 200, "--out", out, "--fresh") == 0
    passport = out / "run.json"
    passport.write_text(json.dumps({"stage": "grpo", "settings": {}}))
    capsys.readouterr()
    for more in ([], ["--fresh"]):
        assert "what another command made (grpo), not eval" in refused(*raw, *more)


def test_a_table_of_other_methods_is_refused(toy: Path, tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "out"
    base = ["eval", "--dataset", toy / "data", "--split", "test", "--index", toy / "index"]
    table = [*base, "--baseline", "raw", "--baseline"]
    assert convsearch(monkeypatch, *table, "history", "--out", out) == 0
    capsys.readouterr()
    assert convsearch(monkeypatch, *table, "history:1", "--out", out) == 2
    assert "methods (there ['raw', 'history'], now ['raw', 'history:1'])" in capsys.readouterr().err
    (out / "history" / "notes.txt").write_text("mine")
    assert convsearch(monkeypatch, *table, "history:1", "--out", out, "--fresh") == 0
    assert [p.name for p in (out / "history").iterdir()] == ["notes.txt"]
    assert (out / "history-1" / "metrics.json").is_file()
