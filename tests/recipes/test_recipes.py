"""Every shipped recipe, and what `convsearch sft` and `convsearch grpo` tell verl, composes."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_editable
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from convsearch.train.grpo import GrpoSettings, grpo_overrides
from convsearch.train.sft import SftSettings, sft_overrides

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "verl" / "examples"
GRPO_SCRIPTS = sorted(p for p in EXAMPLES.glob("grpo_trainer/*.sh") if p.stem != "_run")
SFT_SCRIPTS = sorted(p for p in EXAMPLES.glob("sft/*.sh") if p.stem != "_run")
MAX_LINES = 10


def composed(name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="verl.trainer.config", version_base=None):
        config = compose(name, overrides=overrides)
    OmegaConf.to_container(config, resolve=True)
    return config


def words(script: Path, *more: str, **env: str) -> list[str]:
    """The command a script would run."""
    told = subprocess.run(
        ["bash", str(script), *more],
        env={**os.environ, "DRY_RUN": "1", "MODEL": "/models/a b", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.splitlines()


def overrides_of(script: Path, module: str, *more: str) -> list[str]:
    told = words(script, *more)
    at = told.index(module)
    assert told[at - 1] == "-m"
    return [word for word in told[at + 1 :] if not word.startswith("hydra.")]


def ids(script: Path) -> str:
    return script.stem


def test_there_are_recipes() -> None:
    assert len(GRPO_SCRIPTS) >= 3
    assert len(SFT_SCRIPTS) >= 3
    listed = (EXAMPLES / "README.md").read_text()
    for script in (*GRPO_SCRIPTS, *SFT_SCRIPTS):
        assert f"{script.parent.name}/{script.name}" in listed


@pytest.mark.parametrize("script", GRPO_SCRIPTS + SFT_SCRIPTS, ids=ids)
def test_a_named_script_is_short_and_passes_words_on(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    assert lines[-1].endswith('_run.sh" "$@"')
    assert words(script, "trainer.nnodes=2")[-1] == "trainer.nnodes=2"


@pytest.mark.parametrize("script", GRPO_SCRIPTS, ids=ids)
def test_grpo_recipes_compose_and_pass_verls_checks(script: Path) -> None:
    config = composed("ppo_trainer", overrides_of(script, "verl.trainer.main_ppo"))
    check_grpo(config)
    assert config.actor_rollout_ref.model.path == "/models/a b"
    assert config.trainer.device == ("cpu" if script.stem.endswith("cpu") else "cuda")
    if not script.stem.endswith("cpu"):
        assert config.data.train_batch_size == 128
        assert config.actor_rollout_ref.rollout.n == 8
        assert config.actor_rollout_ref.rollout.temperature == 0.7
        assert config.actor_rollout_ref.actor.kl_loss_coef == 0.001


@pytest.mark.parametrize("script", SFT_SCRIPTS, ids=ids)
def test_sft_recipes_compose(script: Path) -> None:
    config = composed("sft_trainer_engine", overrides_of(script, "verl.trainer.sft_trainer"))
    assert config.model.path == "/models/a b"
    assert config.engine.strategy == "fsdp2"
    assert config.data.val_files is None


def check_grpo(config: DictConfig) -> None:
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    assert config.reward.reward_manager.name == "rewrite_r1"
    assert config.actor_rollout_ref.actor.strategy == "fsdp2"
    assert not need_critic(config)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_settings_compose(tmp_path: Path, device: str) -> None:
    folder = tmp_path / "it's, a=b"
    paths = {"model_path": folder / "m", "train_file": folder / "t", "out_dir": folder / "o"}
    processes = 1 if device == "cpu" else 8
    grpo = GrpoSettings(**paths, total_steps=7, num_gpus=processes, device=device)  # pyright: ignore[reportArgumentType]
    config = composed("ppo_trainer", told(grpo_overrides(grpo)))
    check_grpo(config)
    assert config.data.train_files == str(folder / "t")
    assert config.trainer.total_training_steps == 7
    sft = SftSettings(**paths, nproc=processes, device=device)  # pyright: ignore[reportArgumentType]
    config = composed("sft_trainer_engine", told(sft_overrides(sft)))
    assert config.trainer.default_local_dir == str(folder / "o" / "checkpoints")
    assert list(config.optim.betas) == [0.9, 0.95]


def told(overrides: list[str]) -> list[str]:
    """Without what is meant for Hydra itself, which `compose` does not take."""
    return [word for word in overrides if not word.startswith("hydra.")]


def test_the_original_installation_reaches_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cd verl && pip3 install -e .` puts plugin, library and server on the path."""
    monkeypatch.chdir(ROOT / "verl")
    with zipfile.ZipFile(tmp_path / build_editable(str(tmp_path))) as wheel:
        files = {name.split("/")[-1]: wheel.read(name).decode() for name in wheel.namelist()}
    paths = files["_convsearch_verl.pth"].split()
    assert {Path(p).resolve() for p in paths} == {ROOT, ROOT / "src", ROOT / "verl"}
    assert "convsearch = convsearch_verl.entry" in files["entry_points.txt"]


def test_both_installations_need_the_same() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML by itself")
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    side = tomllib.loads((ROOT / "verl" / "pyproject.toml").read_text())["project"]
    wanted = [*root["dependencies"], *root["optional-dependencies"]["train"]]
    assert sorted(side["dependencies"]) == sorted(wanted)
    assert side["entry-points"]["verl.plugins"] == root["entry-points"]["verl.plugins"]
    assert side["requires-python"] == root["requires-python"]
