"""`convsearch infer, distill, eval` and the original's command lines, on files on disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_domain import write_toy_dataset, write_toy_index

from convsearch.cli import eval_doors, infer_door
from convsearch.cli.main import main
from convsearch.files import read_rewrites, read_run, write_rewrites
from convsearch.passages import write_passages
from convsearch.types import Passage, Rewrite

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_dataset(folder / "data")
    write_toy_index(folder / "index", folder / "data")
    strange = Passage(doc_id="strange", title="", text="from another corpus")
    (folder / "other").mkdir()
    write_passages(folder / "other" / "corpus.jsonl", [strange])
    write_toy_index(folder / "elsewhere", folder / "other")
    return folder


def convsearch(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["convsearch", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def infer_echo(monkeypatch: pytest.MonkeyPatch, toy: Path, out: Path, *more: object) -> int:
    return convsearch(
        monkeypatch, "infer", "--dataset", toy / "data", "--split", "test", "--engine", "echo",
        "--prompt", "nano", "--out", out, *more,
    )  # fmt: skip


def door(name: str, *arguments: object) -> int:
    """Exit code of a door called in this process; 0 where it returns."""
    try:
        getattr(infer_door if name == "infer_main" else eval_doors, name)(
            [str(a) for a in arguments]
        )
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def bm25_flags(toy: Path, queries: Path, out: Path) -> list[object]:
    return [
        "--index_dir_path", toy / "index", "--query_file", queries,
        "--gold_qrel_file_path", toy / "data" / "qrels.trec",
        "--retrieval_output_path", out, "--output_file_name", "bm25.trec",
    ]  # fmt: skip


def test_infer_then_eval(toy: Path, tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "rewrites.jsonl"
    assert infer_echo(monkeypatch, toy, out) == 0
    assert "rewrites 9, ok 9, malformed 0, failed 0" in capsys.readouterr().out
    common = ["eval", "--dataset", toy / "data", "--split", "test", "--index", toy / "index"]
    assert convsearch(monkeypatch, *common, "--rewrites", out, "--out", tmp_path / "e1") == 0
    printed = capsys.readouterr().out
    assert "num_queries 9, answered 9, missing 0, malformed 0, failed 0" in printed
    assert "mrr@100" in printed
    assert convsearch(monkeypatch, *common, "--baseline", "raw", "--out", tmp_path / "e2") == 0
    echoed, raw = (json.loads((tmp_path / e / "metrics.json").read_text()) for e in ("e1", "e2"))
    assert echoed["metrics"] == raw["metrics"]
    assert raw["metrics"]["mrr"] > 0.8
    capsys.readouterr()
    again = [*common, "--rewrites", out, "--out", tmp_path / "e3", "--paper_compat"]
    assert convsearch(monkeypatch, *again) == 0
    assert "paper_compat: mean over answered" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "e3" / "metrics.json").read_text())["convention"] == "paper_compat"
    )


def test_distill(toy: Path, tmp_path: Path, monkeypatch, capsys):
    code = convsearch(
        monkeypatch, "distill", "--dataset", toy / "data", "--index", toy / "index",
        "--engine", "echo", "--prompt", "nano", "--candidates", 2, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0
    assert "turns 12, candidates 24, " in capsys.readouterr().out
    assert (tmp_path / "sft_train.parquet").is_file()
    assert (tmp_path / "sft_val.parquet").is_file()
    settings = json.loads((tmp_path / "run.json").read_text())["settings"]
    assert settings["engine"]["engine"] == "echo"
    assert settings["search"]["engine"]["engine"] == "bm25"
    assert settings["search"]["retriever"] == str(toy / "index")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["infer", "--dataset", "{tmp}/none", "--engine", "echo", "--out", "{tmp}/r.jsonl"],
         "{tmp}/none: no such folder"),
        (["infer", "--dataset", "{toy}/data", "--split", "dev", "--engine", "echo", "--out",
          "{tmp}/r.jsonl"], "no turns of split 'dev'"),
        (["infer", "--dataset", "{toy}/data", "--out", "{tmp}/r.jsonl"], "name it with --model"),
        (["infer", "--dataset", "{toy}/data", "--model", "{toy}/index", "--out", "{tmp}/r.jsonl"],
         "{toy}/index: not a checkpoint"),
        (["infer", "--dataset", "{toy}/data", "--engine", "echo", "--temperature", "-1", "--out",
          "{tmp}/r.jsonl"], "temperature must be 0 or more"),
        (["infer", "--dataset", "{toy}/data", "--engine", "openai", "--workers", "2", "--out",
          "{tmp}/r.jsonl"], "leave --workers at 1"),
        (["eval", "--dataset", "{toy}/data", "--index", "{toy}/index", "--out", "{tmp}/e"],
         "name what to evaluate"),
        (["eval", "--dataset", "{toy}/data", "--baseline", "raw", "--out", "{tmp}/e"],
         "--index with a folder"),
        (["eval", "--dataset", "{toy}/data", "--baseline", "raw", "--index", "{toy}/data", "--out",
          "{tmp}/e"], "{toy}/data: not an index folder"),
        (["eval", "--dataset", "{toy}/data", "--rewrites", "{tmp}/none.jsonl", "--index",
          "{toy}/index", "--out", "{tmp}/e"], "{tmp}/none.jsonl: no such file"),
        (["eval", "--dataset", "{toy}/data", "--rewrites", "{tmp}/bad.jsonl", "--index",
          "{toy}/index", "--out", "{tmp}/e"], "{tmp}/bad.jsonl:2: not valid JSON"),
        (["eval", "--dataset", "{toy}/data", "--rewrites", "{tmp}/other.jsonl", "--index",
          "{toy}/index", "--out", "{tmp}/e"], "qid 'stranger' has a query"),
        (["eval", "--dataset", "{toy}/data", "--rewrites", "{tmp}/empty.jsonl", "--index",
          "{toy}/index", "--out", "{tmp}/e"], "{tmp}/empty.jsonl: holds no rewrite"),
        (["eval", "--dataset", "{toy}/data", "--baseline", "raw", "--index", "{toy}/elsewhere",
          "--out", "{tmp}/e"], "search an index of the corpus that the qrels belong to"),
        (["eval", "--dataset", "{toy}/data", "--baseline", "raw", "--index", "{toy}/index",
          "--out", "{tmp}/bad.jsonl/e"], "{tmp}/bad.jsonl: is a file, not a folder"),
        (["data", "prompts", "--dataset", "{toy}/data", "--split", "train", "--out", "{tmp}"],
         "{tmp}: cannot be read or written"),
        (["eval", "--dataset", "{toy}/data", "--baseline", "raw", "--retriever-url",
          "http://127.0.0.1:1", "--out", "{tmp}/e"], "http://127.0.0.1:1"),
        (["distill", "--dataset", "{toy}/data", "--index", "{toy}/index", "--engine", "echo",
          "--max-rank", "200", "--out", "{tmp}/e"], "deeper than topk"),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence_and_exit_code_2_and_no_output(
    arguments: list[str], said: str, toy: Path, tmp_path: Path, monkeypatch, capsys
):
    stranger = Rewrite(qid="stranger", status="ok", text="a", response="", seed=0)
    write_rewrites(tmp_path / "other.jsonl", [stranger])
    good = (tmp_path / "other.jsonl").read_text()
    (tmp_path / "bad.jsonl").write_text(good + "{oh no\n")
    (tmp_path / "empty.jsonl").touch()
    before = sorted(tmp_path.iterdir())
    filled = [a.format(tmp=tmp_path, toy=toy) for a in arguments]
    monkeypatch.setenv("COLUMNS", "200")
    assert convsearch(monkeypatch, *filled) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    sentence = error[error.index("error: ") :]
    assert said.format(tmp=tmp_path, toy=toy) in sentence
    assert sentence.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_infer_door_makes_what_the_bm25_door_measures(toy: Path, tmp_path: Path, capsys):
    inferred = door(
        "infer_main", "--model_name_or_path", "unused", "--model_name", "nano-toy", "--dp_size", 1,
        "--gpus_per_dp_rank", 1, "--temperature", 0, "--input_path", toy / "data" / "turns.jsonl",
        "--output_path", tmp_path, "--engine", "echo", "--split", "test",
    )  # fmt: skip
    assert inferred == 0
    rewrites = tmp_path / "rewrites.jsonl"
    assert len(read_rewrites(rewrites)) == 9
    assert json.loads((tmp_path / "rewrites.run.json").read_text())["settings"]["style"] == "nano"
    flags = bm25_flags(toy, rewrites, tmp_path / "out")
    assert door("bm25_main", *flags, "--bm25_k1", 0.9, "--bm25_b", 0.4) == 0
    printed = capsys.readouterr().out
    assert "num_queries 9, answered 9" in printed  # the test split, known from the passport
    assert len(read_run(tmp_path / "out" / "bm25.trec")) == 9


def test_bm25_door_with_gaps(toy: Path, tmp_path: Path, monkeypatch, capsys):
    whole = tmp_path / "whole.jsonl"
    assert infer_echo(monkeypatch, toy, whole) == 0
    kept = read_rewrites(whole)
    gappy = [
        *kept[:7],
        Rewrite(qid=kept[7].qid, status="malformed", text=None, response="x", seed=0),
    ]
    write_rewrites(tmp_path / "gappy.jsonl", gappy)
    flags = bm25_flags(toy, tmp_path / "gappy.jsonl", tmp_path / "alone")
    capsys.readouterr()
    assert door("bm25_main", *flags) == 0  # without turns: all 21 qrels count, gaps find nothing
    said = capsys.readouterr()
    assert "num_queries 21, answered 7, missing 13, malformed 1" in said.out
    assert "so one without a well-formed rewrite finds nothing" in said.out
    assert "warning: mean over all queries of the qrels, of whatever split" in said.err
    turns = ["--turns_path", toy / "data" / "turns.jsonl"]
    assert door("bm25_main", *flags, *turns) == 0  # with them: the split, gaps fall back
    assert "num_queries 9, answered 7, missing 1, malformed 1" in capsys.readouterr().out
    assert json.loads((tmp_path / "alone" / "metrics.json").read_text())["metrics"]["mrr"] > 0.8
    assert door("bm25_main", *flags, "--paper_compat") == 0
    assert "7 averaged: paper_compat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--bm25_k1", "0.82"], "was made with k1=0.9, and --bm25_k1 asks for 0.82"),
        (["--bm25_b", "0.68"], "was made with b=0.4"),
        (["--test_type", "rewrite"], "needs a rewrites.jsonl file"),
        (["--index_dir_path", "{toy}/data"], "not an index folder"),
        (["--query_file", "{toy}/data/corpus.jsonl"], "corpus.jsonl:1: neither a rewrite"),
        (["--gold_qrel_file_path", "{toy}/none"], "{toy}/none: no such file"),
        (["--encoder_path", "{toy}"], "an encoder is for dense indexes"),
        (["--rel_threshold", "0"], "the lowest relevant grade must be from 1 to 100,000"),
        (["--retrieval_output_path", "{toy}/data/qrels.trec"], "qrels.trec: is a file, not a fold"),
    ],
)
def test_bm25_door_refuses_with_a_sentence(
    more: list[str], said: str, toy: Path, tmp_path: Path, capsys
):
    flags = bm25_flags(toy, toy / "data" / "turns.jsonl", tmp_path / "out")
    assert door("bm25_main", *flags, *[m.format(toy=toy) for m in more]) == 2
    assert said.format(toy=toy) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ance_door_searches_a_dense_index(toy: Path, tmp_path: Path, capsys):
    from small_corpus import make_tiny_ance

    from retriever_server.indexing.dense import build_dense_index

    encoder = make_tiny_ance(tmp_path / "encoder")
    index = tmp_path / "dense"
    build_dense_index(toy / "data" / "corpus.jsonl", index, encoder_path=encoder)
    flags = [
        "--pretrained_encoder_path", encoder, "--test_file_path", toy / "data" / "turns.jsonl",
        "--passage_embeddings_dir_path", index, "--qrel_output_dir", tmp_path / "out",
        "--output_trec_file", "ance.trec", "--n_gpu", 1, "--test_type", "history",
        "--trec_gold_qrel_file_path", toy / "data" / "qrels.trec",
    ]  # fmt: skip
    assert door("ance_main", *flags) == 0
    assert "num_queries 21, answered 21" in capsys.readouterr().out
    assert len(read_run(tmp_path / "out" / "ance.trec")) == 21
    assert door("ance_main", *flags, "--pretrained_encoder_path", tmp_path / "none") == 2
    assert door("ance_main", *flags, "--passage_embeddings_dir_path", toy / "index") == 2
    assert "this is a bm25 index; name a dense one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "script",
    [
        "src/infer/infer.py",
        "src/eval/get_metrics_using_ance.py",
        "src/eval/get_metrics_using_bm25.py",
    ],
)
def test_doors_are_short_and_open_from_anywhere(script: str, tmp_path: Path):
    assert len((ROOT / script).read_text().splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, ROOT / script, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--temperature" in done.stdout or "--paper_compat" in done.stdout
