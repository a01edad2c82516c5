"""metrics.jsonl across interrupted attempts."""

import json
from pathlib import Path

from convsearch.train.metrics import MetricsFollower, TrainProgress, read_metrics


def line(step: int, **data: float) -> str:
    return json.dumps({"step": step, "data": data}) + "\n"


def test_one_line_a_step_whatever_was_done_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    seen: list[TrainProgress] = []
    first = MetricsFollower(path, total_steps=3, on_progress=seen.append)
    first.attempt_path.write_text(line(1, loss=3.0) + line(2, loss=2.0) + '{"step": 3, "da')
    first.poll()
    assert [(p.step, p.total_steps, p.metrics["loss"]) for p in seen] == [(1, 3, 3.0), (2, 3, 2.0)]

    second = MetricsFollower(path, total_steps=3, on_progress=None)
    assert not second.attempt_path.exists()
    second.attempt_path.write_text(line(2, loss=2.5) + line(3, loss=1.0) + line(3, val=9.0))
    second.close()
    assert read_metrics(path) == {1: {"loss": 3.0}, 2: {"loss": 2.5}, 3: {"loss": 1.0, "val": 9.0}}
    assert len(path.read_text().splitlines()) == 3
    assert not second.attempt_path.exists()


def test_an_attempt_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsFollower(path, total_steps=2, on_progress=None).attempt_path.write_text(
        line(1, loss=3.0)
    )
    MetricsFollower(path, total_steps=2, on_progress=None)
    assert read_metrics(path) == {1: {"loss": 3.0}}
