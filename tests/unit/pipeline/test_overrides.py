"""`--set` reaches every setting, by its type, and refuses what it does not know."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from convsearch.errors import ConfigError
from convsearch.pipeline.overrides import apply_overrides, setting_keys


@dataclass(frozen=True, kw_only=True)
class Inner:
    total_steps: int = 10
    rate: float = 0.1
    early: bool = False

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError("total_steps must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class Outer:
    grpo: Inner = field(default_factory=Inner)
    seed: int = 0
    limit: int | None = None
    style: Literal["nano", "instruct"] = "nano"
    folder: Path = Path("x")


def test_values_take_the_type_of_their_setting() -> None:
    changed = apply_overrides(
        Outer(),
        ["grpo.total_steps=40", "grpo.rate=1e-3", "grpo.early=true", "limit=3", "style=instruct",
         "folder=a/b", "seed=1", "seed=2"],
    )  # fmt: skip
    assert changed == Outer(
        grpo=Inner(total_steps=40, rate=1e-3, early=True),
        limit=3, style="instruct", folder=Path("a/b"), seed=2,
    )  # fmt: skip
    assert apply_overrides(changed, ["limit=none"]).limit is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("grpo.total_step=4", r"no setting 'grpo.total_step'; did you mean grpo.total_steps"),
        ("zzz=4", r"no setting 'zzz'; known: grpo.total_steps"),
        ("grpo=4", r"no setting 'grpo'"),
        ("grpo.total_steps", r"expected key=value"),
        ("grpo.total_steps=4.5", r"must be a whole number, found '4.5'"),
        ("grpo.rate=fast", r"must be a number, found 'fast'"),
        ("grpo.early=maybe", r"must be true or false"),
        ("style=haiku", r"must be one of nano, instruct"),
        ("grpo.total_steps=0", r"--set grpo.total_steps=0: total_steps must be 1 or more"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(Outer(), [assignment])


def test_keys_are_all_leaves() -> None:
    assert list(setting_keys(Outer())) == [
        "grpo.total_steps", "grpo.rate", "grpo.early", "seed", "limit", "style", "folder",
    ]  # fmt: skip
