"""What the agent commands share: lists of numbers, and plots that may be missing."""

from pathlib import Path

import pytest

from convsearch.cli.agent_options import numbers, say_plots
from convsearch.errors import ConfigError, DependencyError


def test_numbers_with_commas() -> None:
    assert numbers("1, 2,30", "--topk") == [1, 2, 30]
    with pytest.raises(ConfigError, match="--topk takes numbers"):
        numbers("1;2", "--topk")


def test_a_missing_matplotlib_loses_only_the_plots(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_form: object) -> list[Path]:
        raise DependencyError("matplotlib is not installed; run pip install")

    say_plots("svg", broken)
    assert "no plots: matplotlib is not installed" in "".join(capsys.readouterr())
    say_plots("none", broken)
    assert "".join(capsys.readouterr()) == ""
    say_plots("svg", lambda form: [Path(f"a.{form}")])
    assert "plots: a.svg" in "".join(capsys.readouterr())
