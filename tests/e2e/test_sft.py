"""SFT end to end: verl's trainer on two processes, a tiny model."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from listening_sockets import SocketWatch
from tiny_model import WORDS, make_tiny_model
from transformers import AutoModelForCausalLM

from convsearch.prompts.rewrite import format_response
from convsearch.train.metrics import TrainProgress, read_metrics
from convsearch.train.sft import SftSettings, run_sft

pytestmark = pytest.mark.e2e
EPOCHS = 4
BATCH = 16
NUM_EXAMPLES = 70
STEPS = EPOCHS * (NUM_EXAMPLES // BATCH)


def write_examples(path: Path, count: int, seed: int) -> Path:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        words = rng.choices(WORDS, k=3)
        answer = format_response(words[0], f"{words[1]} {words[2]}")
        messages = [
            {"role": "user", "content": "Q: " + " ".join(words)},
            {"role": "assistant", "content": answer},
        ]
        rows.append({"messages": messages})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_two_processes_learn_the_answers(tmp_path: Path) -> None:
    settings = SftSettings(
        model_path=make_tiny_model(tmp_path / "tiny"),
        train_file=write_examples(tmp_path / "train.parquet", NUM_EXAMPLES, 0),
        val_file=write_examples(tmp_path / "val.parquet", BATCH, 1),
        out_dir=tmp_path / "out",
        epochs=EPOCHS,
        batch=BATCH,
        micro_batch=4,
        lr=1e-2,
        max_length=128,
        nproc=2,
        device="cpu",
        dtype="float32",
        time_limit_s=600.0,
    )
    seen: list[TrainProgress] = []
    attempt = str(tmp_path / "out" / "metrics.attempt.jsonl")
    with SocketWatch("VERL_FILE_LOGGER_PATH", attempt) as watch:
        model = run_sft(settings, tmp_path / "sft.log", seen.append)
    assert watch.seen
    assert watch.beyond_loopback == set()
    metrics = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert list(metrics) == list(range(1, STEPS + 1))
    assert {p.step for p in seen} == set(metrics)
    assert metrics[STEPS]["train/loss"] < 0.6 * metrics[1]["train/loss"]
    assert metrics[STEPS]["val/loss"] < metrics[1]["train/loss"]

    trained = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    assert trained.dtype == torch.float32
    assert run_sft(settings, tmp_path / "none.log") == model
    assert not (tmp_path / "none.log").exists()
