"""The command line that users know reaches unmodified verl, and misspellings do not."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from convsearch_verl.entry import OK, check
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[2]
DOOR = "verl/verl/utils/reward_score/rewrite_r1.py"
USERS_WORDS = [
    "reward_model.reward_manager=rewrite_r1",
    f"custom_reward_function.path={DOOR}",
    "retriever.topk=100",
]


@pytest.fixture(autouse=True)
def hydra_in_verl() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="verl.trainer.config", version_base=None):
        yield


def composed(*words: str) -> DictConfig:
    config = compose("ppo_trainer", overrides=list(words))
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    return resolved


def test_the_exact_command_composes_on_unmodified_verl(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *USERS_WORDS]
    told = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path}", "--cfg", "job", "--resolve"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    config = yaml.safe_load(told.stdout[told.stdout.index("actor_rollout_ref:") :])
    assert config["reward"]["reward_manager"]["name"] == "rewrite_r1"
    assert config["reward"]["custom_reward_function"] == {"path": DOOR, "name": "compute_score"}
    assert config["retriever"]["topk"] == 100


def test_the_keys_reach_the_live_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVER_URL", "http://h:1")
    config = composed(*USERS_WORDS, "retriever.timeout_s=5")
    assert config.reward.reward_manager.name == "rewrite_r1"
    assert config.reward.custom_reward_function.path == DOOR
    assert (config.retriever.url, config.retriever.timeout_s) == ("http://h:1", 5)
    sampler = config.trainer.v1.sampler
    assert sampler.custom_sampler.path == "pkg://convsearch_verl.replay"
    assert sampler.sampler_kwargs.retriever == config.retriever


def test_todays_spellings_win() -> None:
    config = composed(
        *USERS_WORDS,
        "reward.reward_manager.name=dapo",
        "reward.custom_reward_function.path=mine.py",
        "reward.custom_reward_function.name=mine",
    )
    assert config.reward.reward_manager.name == "dapo"
    assert config.reward.custom_reward_function == {"path": "mine.py", "name": "mine"}


def test_other_reward_managers_keep_verls_own_sampler() -> None:
    config = composed()
    assert config.reward.reward_manager.name == "naive"
    assert config.reward.custom_reward_function.path is None
    assert config.trainer.v1.sampler.custom_sampler.path is None


@pytest.mark.parametrize("word", ["retriever.tpok=1", "retreiver.topk=1", "reward_manger=x"])
def test_a_misspelt_key_is_refused(word: str) -> None:
    with pytest.raises(ConfigCompositionException, match=word.split("=")[0].split(".")[0]):
        composed(word)


def test_verl_finds_all_of_the_plugin() -> None:
    assert set(check().values()) == {OK}
    assert {"entry point", "reward manager", "rollout", "platform", "overlay"} <= set(check())
