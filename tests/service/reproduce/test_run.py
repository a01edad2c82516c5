"""`convsearch reproduce --run` and `convsearch compare` on a small data set, as on a real one."""

import json
import re
import sys
from pathlib import Path

import pytest
from toy_domain import write_toy_dataset, write_toy_index

from convsearch.cli.main import main
from convsearch.pipeline.evaluation_folder import read_evaluation


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has who built data and index: `data/topiocqa` and `indexes/topiocqa_bm25`."""
    root = tmp_path_factory.mktemp("checkout")
    write_toy_dataset(root / "data" / "topiocqa")
    passport = root / "data" / "topiocqa" / "run.json"
    passport.write_text(json.dumps({"settings": {"name": "topiocqa"}, "name": "topiocqa"}))
    write_toy_index(root / "indexes" / "topiocqa_bm25", root / "data" / "topiocqa")
    return root


def convsearch(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["convsearch", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def reproduce(monkeypatch: pytest.MonkeyPatch, root: Path, *more: str) -> int:
    words = ("reproduce", "table1", "--dataset", "topiocqa", "--engine", "bm25", "--run")
    return convsearch(monkeypatch, *words, "--root", root, *more)


def test_it_runs_what_can_be_run_and_goes_on(checkout: Path, monkeypatch, capfd):
    parts = ("evaluate raw", "evaluate history on", "GRPO, Qwen", "serve", "beside the published")
    only = [word for part in parts for word in ("--only", part)]
    assert reproduce(monkeypatch, checkout, *only) == 0
    said = capfd.readouterr().out
    assert "[running] evaluate raw on topiocqa by bm25" in said
    assert re.search(r"\[skipped\] GRPO, Qwen2.5-3B on topiocqa\n +.*needs GPUs: 8, here: 0", said)
    assert "runs until it is stopped: start it yourself" in said
    assert re.search(r"done 3, kept 0, skipped \d+, failed 0", said)
    assert "Entry for a log of reproductions:" in said
    assert "outside the tolerance" in said  # nine toy questions are not the 2,514 of TopiOCQA
    table = checkout / "runs" / "reproduce" / "topiocqa" / "bm25" / "table1.md"
    written = table.read_text()
    assert "Qwen2.5-3B + ConvSearch-R1 (published)" in written
    assert re.search(r"^\| history - raw \| MRR@100 \|", written, re.M)
    assert "these folders on 9" in written
    assert reproduce(monkeypatch, checkout, *only[:4]) == 0
    assert "done 0, kept 2, skipped 0, failed 0" in capfd.readouterr().out


def test_what_eval_writes_is_what_compare_reads(checkout: Path, monkeypatch, capfd, tmp_path):
    for name in ("raw", "history"):
        code = convsearch(
            monkeypatch, "eval", "--dataset", checkout / "data" / "topiocqa", "--baseline", name,
            "--index", checkout / "indexes" / "topiocqa_bm25", "--out", tmp_path / name,
        )  # fmt: skip
        assert code == 0
    read = read_evaluation(tmp_path / "raw")
    assert (read.dataset, read.split, read.topk) == ("topiocqa", "test", 100)
    assert len(read.questions()) == 21
    assert read.input_hash("qrels.trec") is not None
    assert convsearch(monkeypatch, "compare", tmp_path / "raw", tmp_path / "history") == 0
    said = capfd.readouterr().out
    assert re.search(r"^history - raw +MRR@100", said, re.M)


def test_a_step_that_fails_is_named_and_stops_no_other(checkout: Path, monkeypatch, capfd):
    manifest = checkout / "indexes" / "qrecc_bm25" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text("{}")
    write_toy_dataset(checkout / "data" / "qrecc")
    (checkout / "data" / "qrecc" / "run.json").write_text("{}")
    code = convsearch(
        monkeypatch, "reproduce", "table1", "--engine", "bm25", "--run", "--root", checkout,
        "--only", "evaluate raw", "--seeds", 1,
    )  # fmt: skip
    said = capfd.readouterr()
    assert code == 2
    assert "[failed] evaluate raw on qrecc by bm25" in said.out
    assert "1 of 2 steps failed, the first: convsearch eval --dataset data/qrecc" in said.err
    assert "[kept] evaluate raw on topiocqa" in said.out or "[running]" in said.out
