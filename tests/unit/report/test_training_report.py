"""`convsearch report` for a training that was made by hand."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import DataError
from convsearch.files import write_jsonl
from convsearch.train.metrics import metrics_line


def test_the_curves_of_a_training_are_drawn(tmp_path: Path) -> None:
    values = {"critic/score/mean": 1.0, "rewrite/reciprocal_rank": 0.5, "rewrite/malformed": 0.0}
    lines = [metrics_line("grpo", step, values) for step in (1, 2, 3)]
    write_jsonl(tmp_path / "metrics.jsonl", lines)
    made = CliRunner().invoke(app, ["report", "--run", str(tmp_path)])
    assert made.exit_code == 0, made.output
    names = ["reward", "rank", "malformed"]
    assert made.stdout.split() == [str(tmp_path / "curves" / f"training_{n}.svg") for n in names]
    assert (tmp_path / "curves" / "training_rank.svg").read_text().startswith("<?xml")


def test_of_another_folder_it_says_what_it_takes(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["report", "--run", str(tmp_path)])
    assert isinstance(made.exception, DataError)
    with pytest.raises(DataError, match=r"neither a finished run.*nor a training"):
        raise made.exception
