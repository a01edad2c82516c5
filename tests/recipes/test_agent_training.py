"""Search agents inside verl: what the overlay brings, what the sampler refuses and measures."""

from dataclasses import asdict
from typing import Any

import pytest
from convsearch_verl.agent_settings import AgentSettings
from convsearch_verl.replay import METRICS, group_metrics, strict_replay_buffer
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from convsearch.errors import ConfigError

AGENT = "reward_model.reward_manager=search_agent"


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


def test_the_overlay_has_the_defaults_of_the_settings() -> None:
    assert OmegaConf.to_container(composed().search_agent) == asdict(AgentSettings())


def test_a_misspelt_setting_is_refused() -> None:
    for word in ("search_agent.tpok=1", "search_agent.reward.rigth_valid=1"):
        with pytest.raises(ConfigCompositionException):
            composed(word)


def test_an_agent_has_the_strict_sampler_and_its_checks() -> None:
    config = composed(
        AGENT, "retriever.url=http://h:1", "search_agent.tool_format=search_r1",
        "search_agent.strategy=search_r1", "actor_rollout_ref.rollout.name=hf_cpu",
    )  # fmt: skip
    sampler = config.trainer.v1.sampler
    assert sampler.custom_sampler.path == "pkg://convsearch_verl.replay"
    arguments: dict[str, Any] = {"sampler_kwargs": sampler.sampler_kwargs, "trainer_mode": "sync"}
    with pytest.raises(ConfigError, match=r"rollout\.name=hf_cpu"):
        strict_replay_buffer(**arguments)


def test_agents_are_measured_under_their_own_names() -> None:
    names = METRICS["search_agent"][1]
    one, other = dict.fromkeys(["score", *names], 1.0), dict.fromkeys(["score", *names], 0.0)
    metrics = group_metrics(["a", "a", "b", "b"], [one, other, other, other], "search_agent")
    assert set(metrics) == {f"agent/{n}" for n in (*names, "flat_groups", "reward_std_in_group")}
    assert metrics["agent/em"] == 0.25
    assert metrics["agent/flat_groups"] == 0.5
    assert metrics["agent/reward_std_in_group"] == 0.25
