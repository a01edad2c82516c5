"""Every shipped recipe, and what `convsearch sft` and `convsearch grpo` tell verl, composes."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import verl_config
from convsearch_verl.keep_models import KeepModels
from hatchling.build import build_editable
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from convsearch.train.grpo_settings import GrpoSettings, grpo_overrides
from convsearch.train.sft import SftSettings, sft_overrides

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "verl" / "examples"
GRPO_SCRIPTS = sorted(p for p in EXAMPLES.glob("grpo_trainer/*.sh") if p.stem != "_run")
SFT_SCRIPTS = sorted(p for p in EXAMPLES.glob("sft/**/*.sh") if p.stem != "_run")
PAPER_GRPO = [path for path in GRPO_SCRIPTS if path.stem.startswith("run_")]
PAPER_SFT = [path for path in SFT_SCRIPTS if path.stem.startswith("run_")]
MAX_LINES = 10
SFT_MODULE = "verl.trainer.sft_trainer"
EPOCHS = {"topiocqa": 6, "qrecc": 9}
NODES = [(1, 1, "0"), (2, 1, "0"), (4, 1, "0"), (8, 1, "0"), (8, 2, "0"), (1, 1, "1"), (8, 1, "1")]
"""GPUS, NNODES, LORA."""
VLLM_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM 0.24.0 takes, as verl lists it."""


def composed(name: str, overrides: list[str]) -> DictConfig:
    config = verl_config.composed(name, overrides)
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


def overrides_of(script: Path, module: str, *more: str, **env: str) -> list[str]:
    told = words(script, *more, **env)
    at = told.index(module)
    assert told[at - 1] == "-m"
    return [word for word in told[at + 1 :] if not word.startswith("hydra.")]


def ids(script: Path) -> str:
    return str(script.relative_to(EXAMPLES).with_suffix(""))


def test_there_are_recipes() -> None:
    models, datasets = ("qwen2.5-3b", "llama3.2-3b", "llama2-7b"), ("topiocqa", "qrecc")
    assert {path.stem for path in PAPER_GRPO} == {f"run_{m}_{d}" for m in models for d in datasets}
    assert {ids(p) for p in PAPER_SFT} == {f"sft/{d}/run_sft_{m}" for m in models for d in datasets}
    for folder, scripts in (("grpo_trainer", GRPO_SCRIPTS), ("sft", SFT_SCRIPTS)):
        listed = (EXAMPLES / folder / "README.md").read_text()
        assert all(f"`{ids(script)}.sh`" in listed for script in scripts)
        assert "not yet measured" in listed


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
    assert config.trainer.logger == ["console", "file"]


@pytest.mark.parametrize("script", PAPER_GRPO, ids=ids)
def test_grpo_recipes_have_the_papers_values(script: Path) -> None:
    config = composed("ppo_trainer", overrides_of(script, "verl.trainer.main_ppo"))
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size) == (128, 128)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (1536, 1024)
    assert (actor.optim.lr, actor.optim.lr_warmup_steps) == (1e-6, 100)
    assert (actor.use_kl_loss, actor.kl_loss_coef) == (True, 0.001)
    assert actor.kl_loss_type == "low_var_kl"
    assert (rollout.n, rollout.temperature, rollout.name) == (8, 0.7, "vllm")
    assert config.trainer.total_epochs == EPOCHS[script.stem.split("_")[-1]]
    assert (config.trainer.test_freq, config.trainer.save_freq) == (-1, 100)
    more = composed(
        "ppo_trainer", overrides_of(script, "verl.trainer.main_ppo", ROLLOUTS="16", LOGGER="wandb")
    )
    check_grpo(more)
    assert more.actor_rollout_ref.rollout.n == 16
    assert more.trainer.logger == ["console", "file", "wandb"]


@pytest.mark.parametrize(("gpus", "nodes", "lora"), NODES)
def test_grpo_takes_any_node(gpus: int, nodes: int, lora: str) -> None:
    env = {"GPUS": str(gpus), "NNODES": str(nodes), "LORA": lora}
    env["VAL_FILE"] = "/data/a b/v.parquet"
    told = overrides_of(PAPER_GRPO[0], "verl.trainer.main_ppo", **env)
    config = composed("ppo_trainer", told)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    if lora == "1":
        model = config.actor_rollout_ref.model
        assert model.lora_rank in VLLM_LORA_RANKS
        assert (rollout.load_format, rollout.layered_summon) == ("safetensors", True)
        assert "hf_model" not in actor.checkpoint.save_contents
        # verl asks an installed vLLM about the rank, which a machine without a GPU has not
        check_grpo(composed("ppo_trainer", [*told, "actor_rollout_ref.rollout.name=hf_cpu"]))
    else:
        check_grpo(config)
    share = 128 * rollout.n // (gpus * nodes)
    assert share % actor.ppo_micro_batch_size_per_gpu == 0
    assert (config.trainer.n_gpus_per_node, config.trainer.nnodes) == (gpus, nodes)
    assert actor.fsdp_config.optimizer_offload == (lora == "1" or gpus <= 2)
    assert config.data.val_files == "/data/a b/v.parquet"
    assert config.trainer.test_freq == config.trainer.save_freq == 50
    assert type(build_checkpoint_callback(config)) is KeepModels


def test_validation_can_be_left_out_as_in_the_original() -> None:
    told = overrides_of(PAPER_GRPO[0], "verl.trainer.main_ppo", VAL_FILE="/v", TEST_FREQ="-1")
    config = composed("ppo_trainer", told)
    assert (config.trainer.test_freq, config.trainer.save_freq) == (-1, 100)


@pytest.mark.parametrize("script", SFT_SCRIPTS, ids=ids)
def test_sft_recipes_compose(script: Path) -> None:
    config = composed("sft_trainer_engine", overrides_of(script, "verl.trainer.sft_trainer"))
    assert config.model.path == "/models/a b"
    assert config.engine.strategy == "fsdp2"
    assert config.data.val_files is None
    if script in PAPER_SFT:
        assert (config.data.train_batch_size, config.data.max_length) == (64, 3072)
        assert (config.trainer.total_epochs, config.optim.lr) == (2, 1e-5)


@pytest.mark.parametrize(("gpus", "nodes", "lora"), NODES)
def test_sft_takes_any_node(gpus: int, nodes: int, lora: str) -> None:
    env = {"GPUS": str(gpus), "NNODES": str(nodes), "LORA": lora, "VAL_FILE": "/data/v.parquet"}
    env |= {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}
    told = words(PAPER_SFT[0], **env)
    assert f"--nproc_per_node={gpus}" in told
    assert ("--nnodes=1" in told) == (nodes == 1)
    assert ("--node_rank=1" in told) == (nodes > 1)
    config = composed("sft_trainer_engine", overrides_of(PAPER_SFT[0], SFT_MODULE, **env))
    for part in (config.engine, config.optim, config.checkpoint):
        omega_conf_to_dataclass(part)
    assert 64 // (gpus * nodes) % config.data.micro_batch_size_per_gpu == 0
    assert config.trainer.test_freq == "after_each_epoch"
    assert (config.model.lora_rank > 0) == (lora == "1")


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"GPUS": "3"}, "does not divide among 3 GPUs"),
        ({"GPUS": "many"}, "GPUS=many"),
        ({"NNODES": "0"}, "NNODES=0"),
        ({"LORA": "yes"}, "LORA=yes"),
        ({"LOGGER": "x y]"}, "LOGGER=x y]"),
    ],
)
@pytest.mark.parametrize("script", [PAPER_GRPO[0], PAPER_SFT[0]], ids=ids)
def test_a_bad_number_is_a_sentence(script: Path, env: dict[str, str], sentence: str) -> None:
    done = subprocess.run(
        ["bash", str(script)],
        env={**os.environ, "DRY_RUN": "1", "MODEL": "/m", **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stdout == ""


def test_each_validated_model_outlives_its_checkpoint(tmp_path: Path) -> None:
    keep = KeepModels()
    for step in (50, 100):
        weights = tmp_path / f"global_step_{step}" / "actor" / "huggingface" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(bytes([step]))
        keep.on_save(None, step, str(tmp_path / f"global_step_{step}"))
    shutil.rmtree(tmp_path / "global_step_50")
    keep.on_save(None, 100, str(tmp_path / "global_step_100"))
    kept = {p.parent.name: p.read_bytes() for p in (tmp_path / "models").glob("*/*.safetensors")}
    assert kept == {"step_50": bytes([50]), "step_100": bytes([100])}
    (tmp_path / "global_step_150" / "actor").mkdir(parents=True)
    keep.on_save(None, 150, str(tmp_path / "global_step_150"))
    assert len(list((tmp_path / "models").iterdir())) == 2


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
