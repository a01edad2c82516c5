"""Curves of a training: all starts of a run are read, and what is drawn is what was logged."""

import json
from pathlib import Path

import pytest

from convsearch.errors import DataError
from convsearch.report.training_curves import PANELS, read_run, running_mean, write_curves


def write(path: Path, steps: dict[int, dict[str, float]]) -> None:
    lines = [json.dumps({"step": step, "data": data}) for step, data in steps.items()]
    path.write_text("\n".join(lines) + "\n")


def test_a_step_done_again_counts_as_it_was_done_last(tmp_path: Path) -> None:
    write(tmp_path / "metrics_20260101T000000Z.jsonl", {1: {"agent/em": 0.1}, 2: {"agent/em": 0.2}})
    write(tmp_path / "metrics_20260101T010000Z.jsonl", {2: {"agent/em": 0.5}, 3: {"agent/em": 0.6}})
    assert [v["agent/em"] for v in read_run(tmp_path).values()] == [0.1, 0.5, 0.6]


@pytest.mark.parametrize("steps", [{}, {1: {"actor/grad_norm": 1.0}}])
def test_a_folder_without_an_agents_metrics_is_refused(
    tmp_path: Path, steps: dict[int, dict[str, float]]
) -> None:
    write(tmp_path / "metrics.jsonl", steps) if steps else None
    with pytest.raises(DataError, match="agent's training"):
        read_run(tmp_path)


def test_the_running_mean_looks_back_only() -> None:
    assert running_mean([1.0, 3.0, 5.0], window=2) == [1.0, 2.0, 4.0]


def test_a_chart_for_each_curve_that_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = ("em", "queries")
    metrics = {PANELS[name][0]: 0.5 for name in names}
    drawn = write_curves(tmp_path, {"n3": {1: metrics, 2: metrics}, "n1": {1: metrics}})
    assert [path.name for path in drawn] == [f"training_{name}.svg" for name in names]
    text = drawn[0].read_text()
    assert "n3" in text
    assert "n1" in text
    again = write_curves(tmp_path, {"n3": {1: metrics, 2: metrics}, "n1": {1: metrics}})
    assert again[0].read_text() == text
