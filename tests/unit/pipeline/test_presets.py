"""Every preset is a whole, valid configuration, and wrong choices are refused in a sentence."""

from pathlib import Path

import pytest

from convsearch.errors import ConfigError
from convsearch.pipeline.presets import POOLED, PRESETS, preset

SOURCE, POLICY = Path("some/source"), Path("some/policy")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_complete(name: str) -> None:
    config = preset(name, source=SOURCE if name in POOLED else None, policy=POLICY)
    assert config.policy == POLICY
    assert config.data.eval_split == ("dev" if name in POOLED else "test")
    assert config.sft.device == config.grpo.device == "cpu"
    limit = config.grpo.max_response_length
    assert config.infer.sampling.max_tokens == config.distill.max_tokens == limit
    assert config.sft.max_length >= config.grpo.max_prompt_length + limit
    assert len(config.flat()) > 40


@pytest.mark.parametrize(
    ("name", "source", "policy", "message"),
    [
        ("huge", None, None, "unknown preset 'huge'; choose one of mini, tiny"),
        ("topiocqa_pages", None, POLICY, r"needs its data \(--dataset, or"),
        ("cqr_default", SOURCE, None, r"a policy that was made for it \(--policy\)"),
        ("mini", SOURCE, None, "takes no --source"),
    ],
)
def test_wrong_choices(name: str, source: Path | None, policy: Path | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preset(name, source=source, policy=policy)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.rollouts=1", "rollouts must be 2 or more"),
        ("distill.max_rank=0", "max_rank must be 1 or more"),
        ("grpo.seed=3", "no setting 'grpo.seed'"),
        ("sft.model_path=x", "no setting 'sft.model_path'"),
        ("kind=pooled", "needs its folder"),
    ],
)
def test_rooms_refuse_what_makes_no_sense(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preset("mini", source=None, policy=POLICY, overrides=[override])


def test_embedded_policy_is_the_default_of_mini_only() -> None:
    assert preset("mini", source=None, policy=None).policy.parts[-2:] == ("assets", "nano")
