"""Search agents end to end: verl's trainer on processors, a BM25 server, a taught tiny policy.

GRPO has the recipe's own squeezer, PPO one behind an endpoint.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from agent_policy import make_agent_policy, write_agent_case
from fastapi import FastAPI, Request
from grpo_case import sync_failures
from live_server import serving
from transformers import AutoModelForCausalLM

from convsearch.train.device import device_environment
from convsearch.train.launch import run_logged
from convsearch.train.metrics import read_metrics
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.process import ServerProcess

pytestmark = pytest.mark.e2e
RECIPE = Path(__file__).parents[2] / "verl" / "examples" / "expand_search" / "nano_cpu.sh"
STEPS = 4
TAUGHT_STEPS = 200
SIZES = {"grpo": {"BATCH": "4", "ROLLOUTS": "4"}, "gae": {"BATCH": "16", "ROLLOUTS": "1"}}
"""Estimator -> questions of a step and episodes of each."""
KEPT = (2, 4)
"""Steps after which the run with held-out questions validates and keeps its model."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent")
    make_agent_policy(path / "tiny", TAUGHT_STEPS)
    write_agent_case(path)
    build_bm25_index(path / "corpus.jsonl", path / "index")
    return path


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, list[str]]]:
    """A squeezer that passes on what it is given, without the numbers; and what it was asked."""
    app, asked = FastAPI(), []

    @app.post("/v1/chat/completions")
    async def complete(request: Request):
        text = (await request.json())["messages"][-1]["content"]
        asked.append(text)
        said = re.sub(r"(?m)^Doc \d+ ", "", text.split("Passages:\n")[1])
        return {"choices": [{"message": {"content": said}}], "usage": {"completion_tokens": 9}}

    with serving(app) as url:
        yield url, asked


def command(folder: Path, estimator: str, squeezer_url: str) -> list[str]:
    """The recipe's own words, with as many steps as this test can afford."""
    told = subprocess.run(
        [
            "bash",
            str(RECIPE),
            f"trainer.total_training_steps={STEPS}",
            f"trainer.rollout_data_dir={folder / estimator / 'rollouts'}",
        ],
        env={
            **os.environ,
            **SIZES[estimator],
            "DRY_RUN": "1",
            "PYTHON": sys.executable,
            "MODEL": str(folder / "tiny"),
            "ESTIMATOR": estimator,
            "TRAIN_FILE": str(folder / "train.parquet"),
            "OUT": str(folder / estimator),
            "EPOCHS": str(STEPS),
            "VARIANTS": "2",
            "RESPONSE_TOKENS": "192",
            "LR": "1e-3",
            **(validation(folder) if estimator == "grpo" else squeezing(squeezer_url)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.splitlines()


def squeezing(url: str) -> dict[str, str]:
    return {"SQUEEZER": "llm", "SQUEEZER_MODEL": "any", "SQUEEZER_URL": url}


def validation(folder: Path) -> dict[str, str]:
    return {
        "VAL_FILE": str(folder / "train.parquet"),
        "TEST_FREQ": str(KEPT[0]),
        "SAVE_FREQ": str(KEPT[0]),
        "KEEP": "1",
    }


@pytest.mark.parametrize("estimator", ["grpo", "gae"])
def test_an_agent_trains_on_the_tokens_that_it_drew(
    folder: Path, estimator: str, endpoint: tuple[str, list[str]]
) -> None:
    out, metrics_path = folder / estimator, folder / estimator / "metrics.jsonl"
    out.mkdir()
    with ServerProcess() as server:
        url = server.start(folder / "index", folder / "qrels.trec", folder / "server.log")
        env = device_environment("cpu", 1)
        env |= {"RETRIEVER_URL": url, "VERL_FILE_LOGGER_PATH": str(metrics_path)}
        run_logged(
            command(folder, estimator, endpoint[0]),
            stage=estimator,
            env=env,
            log_path=folder / f"{estimator}.log",
            time_limit_s=600.0,
        )
    told = read_metrics(metrics_path)
    metrics = {step: values for step, values in told.items() if "actor/grad_norm" in values}
    # A given token counts as certain in the rollout: were the mask on one, the difference to its
    # probability under the policy would show here as much as stale weights would.
    assert sync_failures(metrics, list(range(1, STEPS + 1))) == []
    # Only the first step is sure to search: four updates can make a policy this small unlearn it.
    texts = outputs(out / "rollouts" / "1.jsonl")
    assert sum("<results>" in text for text in texts) > len(texts) / 2
    assert metrics[1]["agent/searched"] > 0.5
    assert metrics[1]["agent/squeezed_share"] == 1.0
    assert sum(values["agent/squeezer_failed"] for values in metrics.values()) == 0
    assert any(values["agent/em"] > 0 for values in metrics.values())
    if estimator == "gae":
        calls = sum(values["agent/squeezer_calls"] for values in metrics.values())
        assert len(endpoint[1]) >= calls > 0
        assert "tea ingredients" in endpoint[1][0]  # the trial before the run
        assert all(0 < values["critic/grad_norm"] < float("inf") for values in metrics.values())
    else:
        validated = [step for step in told if any(name.startswith("val-") for name in told[step])]
        assert validated == list(KEPT)
        check_kept_models(out)


def check_kept_models(out: Path) -> None:
    """Every validated model is there whole, also that of a checkpoint that verl has removed."""
    assert sorted(path.name for path in (out / "models").iterdir()) == [f"step_{n}" for n in KEPT]
    assert not (out / f"global_step_{KEPT[0]}" / "actor" / "huggingface").exists()
    first, last = (
        AutoModelForCausalLM.from_pretrained(out / "models" / f"step_{n}").state_dict()
        for n in KEPT
    )
    assert any(not torch.equal(first[name], last[name]) for name in first)


def outputs(path: Path) -> list[str]:
    """What the episodes of one step read and wrote after their prompts."""
    return [json.loads(line)["output"] for line in path.read_text().splitlines()]
