"""Two real worker processes."""

import os
from pathlib import Path

import pytest
from rewriting import some_turns

from convsearch.errors import CheckpointError, ConfigError, EngineError
from convsearch.infer import Engine, SamplingParams, open_engine
from convsearch.infer.parallel_engine import ParallelEngine, WorkerSettings, _visible_gpus
from convsearch.prompts import rewrite_messages

CHATS = [rewrite_messages(turn, "nano") for turn in some_turns(7)]
PARAMS = SamplingParams(temperature=0.9, max_tokens=24)
SEEDS = list(range(7))


def test_workers_share_a_batch_and_answer_in_its_order():
    engine = ParallelEngine(2, WorkerSettings(name="echo", model=None))
    assert isinstance(engine, Engine)
    try:
        assert engine.identity == {"engine": "echo", "workers": 2}
        expected = open_engine("echo").generate(CHATS, PARAMS, SEEDS)
        assert engine.generate(CHATS, PARAMS, SEEDS) == expected
        assert engine.generate(CHATS[:1], PARAMS, SEEDS[:1]) == expected[:1]
        engine._workers[1][0].kill()
        with pytest.raises(EngineError, match="worker 1 ended"):
            engine.generate(CHATS, PARAMS, SEEDS)
    finally:
        workers = [worker for worker, _ in engine._workers]
        engine.close()
    assert all(worker.exitcode is not None for worker in workers)


def test_what_a_worker_cannot_open_is_said_here_and_no_process_stays(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        ParallelEngine(1, WorkerSettings(name="transformers", model=str(tmp_path)))


def test_each_worker_sees_its_own_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [_visible_gpus(i, 2) for i in range(2)] == ["0,1", "2,3"]
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "4,6,7")
    assert _visible_gpus(1, 1) == "6"
    with pytest.raises(ConfigError, match="names 3"):
        _visible_gpus(1, 2)
