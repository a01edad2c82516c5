"""Search agents end to end: verl's trainer on processors, a BM25 server, a taught tiny policy."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from agent_policy import make_agent_policy, write_agent_case
from grpo_case import SAME_PROBABILITY

from convsearch.agent.records import parse_episode
from convsearch.train.device import device_environment
from convsearch.train.launch import run_logged
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.process import ServerProcess

pytestmark = pytest.mark.e2e
RECIPE = Path(__file__).parents[2] / "verl" / "examples" / "expand_search" / "nano_cpu.sh"
STEPS, BATCH, ROLLOUTS = 4, 4, 4
TAUGHT_STEPS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent")
    make_agent_policy(path / "tiny", TAUGHT_STEPS)
    write_agent_case(path)
    build_bm25_index(path / "corpus.jsonl", path / "index")
    return path


def command(folder: Path, estimator: str) -> list[str]:
    """The recipe's own words, with as many steps as this test can afford."""
    told = subprocess.run(
        [
            "bash",
            str(RECIPE),
            f"trainer.total_training_steps={STEPS}",
            "actor_rollout_ref.rollout.calculate_log_probs=True",
            f"trainer.rollout_data_dir={folder / estimator / 'rollouts'}",
        ],
        env={
            **os.environ,
            **{"DRY_RUN": "1", "MODEL": str(folder / "tiny"), "ESTIMATOR": estimator},
            **{"TRAIN_FILE": str(folder / "train.parquet"), "OUT": str(folder / estimator)},
            **{"BATCH": str(BATCH), "ROLLOUTS": str(ROLLOUTS), "EPOCHS": "2", "VARIANTS": "2"},
            **{"RESPONSE_TOKENS": "192", "LR": "1e-3"},
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.splitlines()


@pytest.mark.parametrize("estimator", ["grpo"])
def test_an_agent_trains_on_the_tokens_that_it_drew(folder: Path, estimator: str) -> None:
    out, metrics_path = folder / estimator, folder / estimator / "metrics.jsonl"
    out.mkdir()
    with ServerProcess() as server:
        url = server.start(folder / "index", folder / "qrels.trec", folder / "server.log")
        env = device_environment("cpu", 1)
        env |= {"RETRIEVER_URL": url, "VERL_FILE_LOGGER_PATH": str(metrics_path)}
        run_logged(
            command(folder, estimator),
            stage=estimator,
            env=env,
            log_path=folder / f"{estimator}.log",
            time_limit_s=600.0,
        )
    lines = [json.loads(line) for line in metrics_path.read_text().splitlines()]
    metrics = {line["step"]: line["data"] for line in lines if "actor/grad_norm" in line["data"]}
    assert list(metrics) == list(range(1, STEPS + 1))
    for values in metrics.values():
        assert values["training/rollout_probs_diff_max"] < SAME_PROBABILITY
        assert values["training/rollout_actor_probs_pearson_corr"] > 0.999
        assert 0 < values["actor/grad_norm"] < float("inf")
