"""The scripts for indexes, servers and models: what they run is accepted by the real commands."""

import os
import subprocess
from pathlib import Path

import pytest
import typer

from convsearch.cli.main import app

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
DATASETS, ENGINES = ("topiocqa", "qrecc"), ("bm25", "ance")
NAMED = [f"{what}_{d}_{e}" for what in ("build_index", "serve") for d in DATASETS for e in ENGINES]
NAMED += [f"{what}_wiki18_{e}" for what in ("build_index", "serve") for e in ("bm25", "e5")]
MAX_LINES = 10


def told(name: str, *more: str, **env: str) -> list[str]:
    """The words that a script would run."""
    done = subprocess.run(
        ["bash", str(SCRIPTS / f"{name}.sh"), *more],
        env={**os.environ, "DRY_RUN": "1", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def parsed(words: list[str]) -> dict[str, object]:
    """The options of a `convsearch` command as its parser reads them; raises where it refuses."""
    at = next(i for i, word in enumerate(words) if word.endswith("/convsearch"))
    command, rest = typer.main.get_command(app), words[at + 1 :]
    while hasattr(command, "resolve_command"):
        context = command.make_context("convsearch", list(rest))
        rest = [*getattr(context, "_protected_args", []), *context.args]
        _, command, rest = command.resolve_command(context, rest)  # pyright: ignore
    return command.make_context("convsearch", list(rest)).params


@pytest.mark.parametrize("name", [*NAMED, "download_models", "merge_checkpoint", "push_to_hub"])
def test_a_script_is_short_and_passes_words_on(name: str) -> None:
    lines = (SCRIPTS / f"{name}.sh").read_text().splitlines()
    assert len(lines) <= MAX_LINES
    assert lines[-1].endswith('"$@"')


@pytest.mark.parametrize(("dataset", "k1", "b"), [("topiocqa", 0.9, 0.4), ("qrecc", 0.82, 0.68)])
def test_bm25_has_the_papers_parameters(dataset: str, k1: float, b: float) -> None:
    options = parsed(told(f"build_index_{dataset}_bm25", "--workers", "3"))
    assert (options["k1"], options["b"], options["workers"]) == (k1, b, 3)
    assert options["engine"] == "bm25"
    served = parsed(told(f"serve_{dataset}_bm25"))
    assert served["index"] == [str(options["out"])]
    assert served["host"] == "127.0.0.1"


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("gpus", ["1", "2", "4", "8"])
def test_ance_is_encoded_by_all_gpus(dataset: str, gpus: str) -> None:
    words = told(f"build_index_{dataset}_ance", GPUS=gpus)
    assert (f"--nproc-per-node {gpus} --no-python" in " ".join(words)) == (gpus != "1")
    options = parsed(words)
    served = parsed(told(f"serve_{dataset}_ance", PORT="8001"))
    assert options["engine"] == "dense"
    assert served["encoder"] == [str(options["encoder"])]
    assert served["index"] == [str(options["out"])]
    assert served["port"] == 8001


def test_wiki18_has_the_prefixes_of_e5_and_no_gold_passages() -> None:
    options = parsed(told("build_index_wiki18_e5", GPUS="2"))
    assert (options["query_prefix"], options["passage_prefix"]) == ("query: ", "passage: ")
    served = parsed(told("serve_wiki18_e5"))
    assert served["encoder"] == [str(options["encoder"])]
    assert served["index"] == [str(options["out"])]
    assert not served["qrels"]
    assert parsed(told("build_index_wiki18_bm25"))["corpus"] == options["corpus"]
    assert parsed(told("serve_wiki18_bm25", QRELS="q.trec"))["qrels"] == ["q.trec"]


def test_models_and_checkpoints() -> None:
    assert parsed(told("download_models"))["names"] == ["released", "sft", "ance", "ance-paper"]
    assert parsed(told("download_models", "--verify"))["verify"] is True
    assert parsed(told("download_models", "base", "--to", "/x"))["names"] == ["base"]
    merged = parsed(told("merge_checkpoint", "--checkpoint", "runs/a b/grpo", "--out", "out"))
    assert str(merged["checkpoint"]) == "runs/a b/grpo"
    pushed = parsed(told("push_to_hub", "--model", "out", "--repo", "me/mine", "--dry-run"))
    assert (pushed["repo"], pushed["dry_run"]) == ("me/mine", True)


def test_a_bad_number_is_a_sentence() -> None:
    done = subprocess.run(
        ["bash", str(SCRIPTS / "build_index_qrecc_ance.sh")],
        env={**os.environ, "GPUS": "all"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "GPUS=all" in done.stderr
