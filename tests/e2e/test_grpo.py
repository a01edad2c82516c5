"""GRPO end to end: verl's trainer on processors, a BM25 server, a tiny model."""

import json
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from grpo_case import PROMPTS_PER_STEP, ROLLOUTS, grpo_settings, sync_failures, write_case
from listening_sockets import SocketWatch, processes_with
from tiny_model import make_tiny_model
from transformers import AutoModelForCausalLM

from convsearch.errors import StageError
from convsearch.prompts.rewrite import parse_rewrite
from convsearch.rewards.rank_incentive import MALFORMED_REWARD
from convsearch.train import grpo
from convsearch.train.grpo import run_grpo
from convsearch.train.grpo_settings import GrpoSettings, grpo_overrides
from convsearch.train.metrics import TrainProgress, read_metrics
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.process import ServerProcess

pytestmark = pytest.mark.e2e
BREAK_AFTER = 2
TOTAL_STEPS = 6  # more than can pass between the log line of a step and the stop of the server
MORE_STEPS = 3  # of the second start, so that updates come between them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grpo")
    make_tiny_model(path / "tiny", taught_steps=200)
    write_case(path)
    build_bm25_index(path / "corpus.jsonl", path / "index")
    return path


def start(server: ServerProcess, folder: Path) -> str:
    return server.start(folder / "index", folder / "qrels.trec", folder / "server.log")


def rewards_by_group(path: Path) -> dict[str, list[float]]:
    groups = defaultdict(list)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        groups[record["uid"].split("_")[0]].append(record["score"])
    return groups


def test_a_server_that_dies_stops_the_run_and_the_next_start_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run is also the negative control of the check on weights: its rollout keeps the
    first ones, of which no error tells, and the check must not pass it."""
    # the client's default bridges a minute, and nothing is to be learnt from waiting for it
    monkeypatch.setattr(
        grpo, "grpo_overrides", lambda settings: [*grpo_overrides(settings), "retriever.attempts=2"]
    )
    settings = grpo_settings(folder, total_steps=TOTAL_STEPS, out="run")
    metrics_path = folder / "run" / "metrics.jsonl"
    with ServerProcess() as server:
        url = start(server, folder)

        def stop_server(progress: TrainProgress) -> None:
            if progress.step == BREAK_AFTER:
                server.stop()

        with monkeypatch.context() as stale:
            stale.setenv("VERL_USE_EXTERNAL_MODULES", "stale_sync")
            stale.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
            with pytest.raises(StageError, match=f"{url}/retrieve"):
                run_grpo(settings, url, folder / "grpo-1.log", metrics_path, stop_server)
        assert processes_with("RETRIEVER_URL", url) == []
        before = read_metrics(metrics_path)
        done = len(before)
        assert BREAK_AFTER <= done < TOTAL_STEPS
        check_stale(before, done)

        url = start(server, folder)
        seen: list[int] = []
        settings = replace(settings, total_steps=done + MORE_STEPS)
        with SocketWatch("RETRIEVER_URL", url) as watch:
            model = run_grpo(
                settings, url, folder / "grpo-2.log", metrics_path, lambda p: seen.append(p.step)
            )
    assert {name for _, name in watch.seen} >= {"raylet", "gcs_server"}
    assert watch.beyond_loopback == set()
    assert processes_with("RETRIEVER_URL", url) == []
    later = list(range(done + 1, done + MORE_STEPS + 1))
    assert seen == later
    metrics = read_metrics(metrics_path)
    assert {step: metrics[step] for step in before} == before
    in_sync = {step: metrics[step] for step in metrics if step not in before}
    assert sync_failures(in_sync, later) == []
    check_groups(settings, metrics)
    check_model(settings, model)


def check_stale(metrics: dict[int, dict[str, float]], steps: int) -> None:
    """Right before the first update, wrong after it."""
    failures = sync_failures(metrics, list(range(1, steps + 1)))
    assert {failure.split(":")[0] for failure in failures} == {
        f"step {step}" for step in range(2, steps + 1)
    }


def check_rollouts(path: Path) -> None:
    """Each response is there with what became of it."""
    for line in path.read_text().splitlines():
        record = json.loads(line)
        parsed = parse_rewrite(record["output"])
        assert record["qid"].startswith("q")
        assert record["query"] == (parsed.rewrite if parsed else "")
        assert record["status"] == ("ok" if parsed else "malformed")
        assert record["reward"] == record["score"]
        assert (record["rank"] is not None) == (record["found"] == 1.0)
        assert record["rank"] is None or record["reward"] > 0
        assert record["gts"][0].startswith("p")
        assert "Q: " in record["input"]


def check_groups(settings: GrpoSettings, metrics: dict[int, dict[str, float]]) -> None:
    """One query id, several rewrites, several ranks."""
    for step, values in metrics.items():
        check_rollouts(settings.out_dir / "rollouts" / f"{step}.jsonl")
        groups = rewards_by_group(settings.out_dir / "rollouts" / f"{step}.jsonl")
        assert [len(rewards) for rewards in groups.values()] == [ROLLOUTS] * PROMPTS_PER_STEP
        ranked = [{r for r in rewards if r != MALFORMED_REWARD} for rewards in groups.values()]
        assert any(len(rewards) > 1 for rewards in ranked)
        assert values["rewrite/reward_std_in_group"] > 0
        assert values["rewrite/flat_groups"] < 1
        assert values["rewrite/found"] > 0


def check_model(settings: GrpoSettings, folder: Path) -> None:
    """The result loads, in the precision it was trained in, and has learned something."""
    trained = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    first = AutoModelForCausalLM.from_pretrained(settings.model_path, dtype="auto")
    assert trained.dtype == torch.float32
    changed = [
        not torch.equal(a, b) for a, b in zip(trained.parameters(), first.parameters(), strict=True)
    ]
    assert all(changed)
    passport = json.loads((settings.out_dir / "run.json").read_text())
    assert passport["counts"]["steps"] == settings.total_steps
    assert not (settings.out_dir / "checkpoints").exists()
