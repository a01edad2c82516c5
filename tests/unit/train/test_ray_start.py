"""A Ray that is slow to come up is tried again; every other failure ends the stage at once."""

from pathlib import Path

import pytest

from convsearch.errors import StageError
from convsearch.train import grpo
from convsearch.train.metrics import MetricsFollower


def settings(folder: Path) -> grpo.GrpoSettings:
    return grpo.GrpoSettings(
        model_path=folder, train_file=folder, out_dir=folder / "out", total_steps=1
    )


def failing(monkeypatch: pytest.MonkeyPatch, sentences: list[str]) -> list[int]:
    """Makes the trainer fail with these sentences in turn; returns a list that grows by calls."""
    calls: list[int] = []

    def run(*_: object, **__: object) -> None:
        calls.append(1)
        if len(calls) <= len(sentences):
            raise StageError(f"grpo: ended with exit code 1: {sentences[len(calls) - 1]}")

    monkeypatch.setattr(grpo, "run_logged", run)
    return calls


def train(folder: Path) -> None:
    follower = MetricsFollower(
        folder / "metrics.jsonl", stage="grpo", total_steps=1, on_progress=None
    )
    grpo._train(settings(folder), {}, folder / "log", follower)


def test_a_slow_ray_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(monkeypatch, [f"Exception: {grpo.RAY_NOT_UP}."] * (grpo.RAY_ATTEMPTS - 1))
    train(tmp_path)
    assert len(calls) == grpo.RAY_ATTEMPTS


def test_a_ray_that_never_comes_up_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = failing(monkeypatch, [f"Exception: {grpo.RAY_NOT_UP}."] * 9)
    with pytest.raises(StageError, match="timed out during startup"):
        train(tmp_path)
    assert len(calls) == grpo.RAY_ATTEMPTS


def test_other_failures_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = failing(monkeypatch, ["RetrieverError: http://127.0.0.1:1 does not answer"])
    with pytest.raises(StageError, match="does not answer"):
        train(tmp_path)
    assert len(calls) == 1
