"""Search agents inside verl: what the overlay brings, what the sampler refuses and measures."""

import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import verl_config
from convsearch_verl.agent_settings import AgentSettings, agent_settings, check_rollout
from convsearch_verl.replay import METRICS, group_metrics, strict_replay_buffer
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from tiny_model import make_tiny_model
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from convsearch.errors import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "verl" / "examples" / "expand_search"
SCRIPTS = sorted(path for path in FOLDER.glob("*.sh") if path.stem != "_run")
PAPER = [path for path in SCRIPTS if path.stem.startswith("run_")]
MAX_LINES = 10
AGENT = "reward_model.reward_manager=search_agent"


def composed(*overrides: str) -> DictConfig:
    return verl_config.composed("ppo_trainer", list(overrides))


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
    more = ("drawn_groups", "flat_groups", "reward_std_in_group", "squeezed_share")
    assert set(metrics) == {f"agent/{n}" for n in (*names, *more)}
    assert metrics["agent/em"] == 0.25
    assert metrics["agent/flat_groups"] == 0.5
    assert metrics["agent/reward_std_in_group"] == 0.25
    assert metrics["agent/squeezed_share"] == 0.0
    unasked = group_metrics(["a", "b"], [other, other], "search_agent")
    assert "agent/squeezed_share" not in unasked


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real one: verl reads the configuration of a critic's model when it checks the whole."""
    return str(make_tiny_model(tmp_path_factory.mktemp("a b") / "tiny"))


def words(script: Path, *more: str, **env: str) -> list[str]:
    """The command a script would run."""
    told = subprocess.run(
        ["bash", str(script), *more],
        env={**os.environ, "DRY_RUN": "1", "MODEL": "m", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.splitlines()


def recipe(script: Path, model: str, **env: str) -> DictConfig:
    """What a script tells verl, composed and checked by verl's own `validate_config`."""
    told = words(script, MODEL=model, **env)
    at = told.index("verl.trainer.main_ppo")
    config = composed(*(word for word in told[at + 1 :] if not word.startswith("hydra.")))
    OmegaConf.to_container(config, resolve=True)
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    return config


def settings_of(config: DictConfig) -> AgentSettings:
    node: Any = OmegaConf.to_container(config.search_agent, resolve=True)
    return agent_settings(node)


def name_of(script: Path) -> str:
    return script.stem


def test_recipes_are_short_and_listed() -> None:
    listed = (FOLDER / "README.md").read_text()
    assert "not yet measured" in listed
    for script in SCRIPTS:
        assert f"`expand_search/{script.name}`" in listed
        lines = script.read_text().splitlines()
        assert len(lines) <= MAX_LINES
        assert lines[-1].endswith('_run.sh" "$@"')
        assert words(script, "trainer.nnodes=2")[-1] == "trainer.nnodes=2"


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_recipe_composes_and_its_agent_is_right(script: Path, model: str) -> None:
    config = recipe(script, model)
    settings = settings_of(config)
    check_rollout(settings, config.actor_rollout_ref.rollout.name)
    assert config.reward.reward_manager.name == "search_agent"
    assert config.actor_rollout_ref.model.path == model
    assert config.actor_rollout_ref.actor.strategy == "fsdp2"
    assert need_critic(config) == script.stem.endswith("ppo")
    assert settings.strategy == ("search_r1" if "search_r1" in script.stem else "expand_search")


def test_ppo_has_the_values_of_the_released_scripts(model: str) -> None:
    [script] = [path for path in PAPER if path.stem.endswith("ppo")]
    config = recipe(script, model)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size) == (512, 256)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (4096, 3000)
    assert (actor.optim.lr, actor.optim.lr_warmup_steps) == (1e-6, 100)
    assert (config.critic.optim.lr, config.critic.optim.lr_warmup_steps) == (1e-5, 15)
    assert (actor.use_kl_loss, actor.entropy_coeff, rollout.n) == (False, 0, 1)
    assert (config.algorithm.gamma, config.algorithm.lam) == (1.0, 1.0)
    assert (config.critic.strategy, config.critic.model.path) == ("fsdp2", model)
    assert (config.trainer.total_epochs, config.trainer.save_freq) == (15, 100)
    settings = settings_of(config)
    assert (settings.topk, settings.max_turns, settings.tool_format) == (10, 4, "hermes")
    assert settings.agent_strategy().budget.max_queries_per_call == 3


def test_the_baseline_reads_as_many_documents(model: str) -> None:
    ours, baseline = (
        settings_of(recipe(FOLDER / f"run_{name}_grpo.sh", model))
        for name in ("expand_search", "search_r1")
    )
    assert ours.search() == baseline.search()
    assert (ours.squeezer, ours.max_turns) == (baseline.squeezer, baseline.max_turns)
    assert baseline.agent_strategy().budget.max_queries_per_call == 1


def test_a_recipe_takes_the_squeezer_of_the_original(model: str) -> None:
    env = {"SQUEEZER": "llm", "SQUEEZER_MODEL": "org/big model", "SQUEEZER_URL": "http://h:1/v1"}
    settings = settings_of(recipe(PAPER[0], model, **env, SQUEEZER_CACHE="/a b/c.db"))
    assert (settings.squeezer, settings.llm.model) == ("llm", "org/big model")
    assert (settings.llm.url, settings.llm.cache) == ("http://h:1/v1", "/a b/c.db")
    with pytest.raises(ConfigError, match=r"llm\.model"):
        settings_of(recipe(PAPER[0], model, SQUEEZER="llm"))


@pytest.mark.parametrize(("gpus", "nodes"), [(2, 1), (8, 2)])
@pytest.mark.parametrize("script", PAPER[:2], ids=name_of)
def test_a_recipe_takes_any_node(script: Path, gpus: int, nodes: int, model: str) -> None:
    env = {"GPUS": str(gpus), "NNODES": str(nodes), "VAL_FILE": "/data/a b/v.parquet"}
    config = recipe(script, model, **env)
    actor = config.actor_rollout_ref.actor
    share = actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n // (gpus * nodes)
    assert share % actor.ppo_micro_batch_size_per_gpu == 0
    assert actor.fsdp_config.optimizer_offload == (gpus <= 2)
    assert config.trainer.test_freq == config.trainer.save_freq == 100


def test_what_a_recipe_cannot_do_is_a_sentence() -> None:
    for env, sentence in (({"LORA": "1"}, "LORA=1"), ({"GPUS": "3"}, "does not divide")):
        done = subprocess.run(
            ["bash", str(PAPER[0])],
            env={**os.environ, "DRY_RUN": "1", "MODEL": "m", **env},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in done.stderr


def test_a_small_policy_may_have_a_critic(model: str) -> None:
    config = recipe(FOLDER / "nano_cpu.sh", model, ESTIMATOR="gae")
    assert need_critic(config)
    assert config.critic.fsdp.dtype == "float32"
