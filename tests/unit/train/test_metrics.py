"""metrics.jsonl across interrupted attempts, in one form; a training that diverges is stopped."""

import json
from pathlib import Path

import pytest

from convsearch.errors import DataError, StageError
from convsearch.train.metrics import NO_UPDATES, MetricsFollower, TrainProgress, read_metrics


def line(step: int, **data: float | None) -> str:
    """As verl writes it: what is not finite becomes null."""
    return json.dumps({"step": step, "data": data}) + "\n"


def follow(path: Path, seen: list[TrainProgress] | None = None) -> MetricsFollower:
    on_progress = None if seen is None else seen.append
    return MetricsFollower(path, stage="sft", total_steps=3, on_progress=on_progress)


def test_one_line_a_step_whatever_was_done_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    seen: list[TrainProgress] = []
    first = follow(path, seen)
    first.attempt_path.write_text(line(1, loss=3.0) + line(2, loss=2.0) + '{"step": 3, "da')
    first.poll()
    assert [(p.step, p.total_steps, p.metrics["loss"]) for p in seen] == [(1, 3, 3.0), (2, 3, 2.0)]

    second = follow(path)
    assert not second.attempt_path.exists()
    second.attempt_path.write_text(line(2, loss=2.5) + line(3, loss=1.0) + line(3, val=9.0))
    second.close()
    assert read_metrics(path) == {1: {"loss": 3.0}, 2: {"loss": 2.5}, 3: {"loss": 1.0, "val": 9.0}}
    assert [json.loads(text) for text in path.read_text().splitlines()] == [
        {"stage": "sft", "step": 1, "loss": 3.0},
        {"stage": "sft", "step": 2, "loss": 2.5},
        {"stage": "sft", "step": 3, "loss": 1.0, "val": 9.0},
    ]
    assert not second.attempt_path.exists()


def test_an_attempt_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follow(path).attempt_path.write_text(line(1, loss=3.0))
    follow(path)
    assert read_metrics(path) == {1: {"loss": 3.0}}


def test_the_nested_form_of_earlier_versions_is_read_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1, loss=3.0) + '{"stage": "sft", "step": 2, "loss": 2.0}\n')
    assert read_metrics(path) == {1: {"loss": 3.0}, 2: {"loss": 2.0}}
    again = follow(path)
    again.attempt_path.write_text(line(3, loss=1.0))
    again.poll()
    assert "data" not in path.read_text()


@pytest.mark.parametrize("text", ['{"data": {}}', '{"step": "1"}', '{"step": 1, "data": 3}', "{"])
def test_a_damaged_line_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{line(1, loss=1.0)}{text}\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: "):
        read_metrics(path)


@pytest.mark.parametrize("name", ["train/loss", "val/loss", "actor/pg_loss", "critic/vf_loss"])
def test_a_loss_that_is_not_finite_stops_the_training_and_the_next_start(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    seen: list[TrainProgress] = []
    follower = follow(path, seen)
    follower.attempt_path.write_text(line(1, **{name: 1.0}))
    follower.poll()
    with follower.attempt_path.open("a") as stream:
        stream.write(line(2, **{name: None}))
    with pytest.raises(StageError, match=rf"sft: step 2: {name} is not a finite number"):
        follower.poll()
    follower.close()
    assert [p.step for p in seen] == [1, 2]
    assert json.loads(path.read_text().splitlines()[1])[name] is None

    later = follow(path)
    later.require_finite(up_to=1)
    with pytest.raises(StageError, match="step 2"):
        later.require_finite(up_to=2)
    later.attempt_path.write_text(line(2, **{name: 0.5}))
    later.poll()
    later.require_finite(up_to=3)


def test_a_step_without_an_update_is_borne_and_several_in_a_row_are_not(tmp_path: Path) -> None:
    follower = follow(tmp_path / "metrics.jsonl")
    with follower.attempt_path.open("a") as stream:
        for step in range(1, NO_UPDATES + 1):
            norm = None if step > 1 else 1.0
            stream.write(line(step, **{"actor/grad_norm": norm, "actor/loss": 0.1}))
    follower.poll()
    with follower.attempt_path.open("a") as stream:
        stream.write(line(NO_UPDATES + 1, **{"actor/grad_norm": None, "actor/loss": 0.1}))
    with pytest.raises(StageError, match="the gradient of this step and of the 2 before"):
        follower.poll()


def test_other_numbers_may_be_undefined(tmp_path: Path) -> None:
    follower = follow(tmp_path / "metrics.jsonl")
    follower.attempt_path.write_text(line(1, **{"training/pearson_corr": None, "loss": 0.1}))
    follower.poll()
