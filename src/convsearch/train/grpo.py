"""Reinforcement learning by rank: verl's `main_ppo` (GRPO, FSDP2) with the reward `rewrite_r1`."""

import logging
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from convsearch.errors import ConfigError, StageError
from convsearch.made import WAY_OUT, Output
from convsearch.passport import write_passport
from convsearch.rewards.shapes import RewardShape, check_shape
from convsearch.train.asking import asking_of_training
from convsearch.train.best_step import KEEPER, best_step
from convsearch.train.checkpoint import latest_step, publish, require_model
from convsearch.train.device import (
    Device,
    Dtype,
    check_positive,
    device_environment,
    flag_of,
    precision_overrides,
    require_verl,
)
from convsearch.train.launch import run_logged
from convsearch.train.metrics import MetricsFollower, ProgressCallback, read_metrics
from convsearch.train.outputs import grpo_output, served_index
from convsearch.train.overrides import Value, override
from convsearch.train.preflight import check_grpo
from convsearch.train.preflight.prepared import as_pattern
from convsearch.train.rows import count_rows

log = logging.getLogger(__name__)

STAGE = "grpo"
CHECKPOINTS = "checkpoints"
MODEL = "model"
_ABOVE_ZERO = (
    *("total_steps", "prompts_per_step", "micro_batch", "lr", "clip_ratio", "temperature", "topk"),
    *("max_prompt_length", "max_response_length", "num_gpus", "save_freq", "time_limit_s"),
)
_ZERO_OR_MORE = (
    *("mini_batch", "lr_warmup_steps", "kl_coef", "entropy_coef"),
    *("val_freq", "seed", "threads"),
)
RAY_NOT_UP = "The current node timed out during startup"
"""Ray's words where its daemons took longer than the 30 s it allows, a constant in its source."""
RAY_ATTEMPTS = 3
_NEEDS = ("prompt", "reward_model", "data_source")
LR_SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True, kw_only=True)
class GrpoSettings:
    """One training. The defaults are the paper's (arXiv 2505.15776, appendix), on 8 GPUs."""

    model_path: Path
    """Model to start from, in Hugging Face form."""
    train_file: Path
    """Parquet of prompts (see `convsearch.data.parquet`)."""
    val_file: Path | None = None
    """The same for validation; None leaves it out."""
    out_dir: Path
    """Folder of checkpoints and result."""
    total_steps: int
    """Updates of the policy (the paper: about 2,130 on TopiOCQA, 2,080 on QReCC)."""
    prompts_per_step: int = 128
    """Prompts in one step."""
    rollouts: int = 8
    """Responses to each prompt: the group whose mean reward is the baseline."""
    mini_batch: int = 0
    """Prompts in one update; 0 for all of a step, which keeps it on-policy."""
    micro_batch: int = 8
    """Responses in one forward pass of one process."""
    lr: float = 1e-6
    """Learning rate after the warm-up."""
    lr_warmup_steps: int = 100
    """Updates in which the rate rises."""
    lr_schedule: str = "constant"
    """What the rate does then: `constant`, or `cosine`, which falls to 0 at the last step."""
    kl_coef: float = 0.001
    """Weight of the divergence from the first model in the loss; 0 needs no reference model."""
    entropy_coef: float = 0.0
    """Weight of the entropy in the loss."""
    clip_ratio: float = 0.2
    """How far the ratio of new to old probability may leave 1 before it is cut."""
    temperature: float = 0.7
    """Of the responses in training."""
    max_prompt_length: int = 1536
    """Tokens; a longer prompt loses its oldest turns, never the instruction."""
    max_response_length: int = 1024
    """Tokens."""
    filter_groups: bool = False
    """Train on groups whose rewards differ only (DAPO, arXiv 2503.14476): groups of equal rewards
    teach nothing and are replaced by further prompts, at most twice as many as a step has; beyond
    that they stay."""
    topk: int = 100
    """Depth to which the server looks for gold passages."""
    reward: RewardShape = "piecewise"
    """How a rank becomes a reward; the others are those of the paper's table 6 and figure 5."""
    device: Device = "cuda"
    """Where it runs; `cpu` samples with the rollout `hf_cpu`, `cuda` with vLLM."""
    num_gpus: int = 8
    """Processes of the policy; on CPUs, logical GPUs."""
    dtype: Dtype = "bfloat16"
    """Arithmetic. Weights and optimizer are kept in float32."""
    recompute_log_probs: bool = True
    """Compute the old probabilities with the policy that is trained. False takes the rollout's: it
    saves a forward pass, and with it the check that both hold the same weights."""
    save_freq: int = 100
    """Steps between checkpoints; the last step is always saved."""
    val_freq: int = 0
    """Steps between validations; 0 for none."""
    keep_best: bool = False
    """Publish the step with the highest mean reward on `val_file`, not the last one."""
    dump_rollouts: bool = False
    """Write every response to `out_dir/rollouts/<step>.jsonl`, with its query, rank and reward."""
    seed: int = 0
    """Of the order of the prompts and of the responses."""
    threads: int = 0
    """On CPUs, threads of each process; 0 for all cores (policy and rollout take turns)."""
    time_limit_s: float = 7 * 24 * 3600.0
    """The training is stopped after this."""

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            check_positive(flag_of(STAGE, name), getattr(self, name))
        for name in _ZERO_OR_MORE:
            check_positive(flag_of(STAGE, name), getattr(self, name), zero_allowed=True)
        check_shape(self.reward)
        if self.lr_schedule not in LR_SCHEDULES:
            raise ConfigError(
                f"{flag_of(STAGE, 'lr_schedule')} must be one of {', '.join(LR_SCHEDULES)}, got "
                f"{self.lr_schedule!r}"
            )
        if self.rollouts < 2:
            raise ConfigError(
                f"{flag_of(STAGE, 'rollouts')} must be 2 or more: a group of one has no baseline"
            )
        if self.prompts_per_step % (self.mini_batch or self.prompts_per_step):
            raise ConfigError(
                f"{flag_of(STAGE, 'prompts_per_step')} {self.prompts_per_step} must be a multiple "
                f"of --mini-batch {self.mini_batch}"
            )
        if (self.mini_batch or self.prompts_per_step) * self.rollouts % self.num_gpus:
            name = "mini_batch" if self.mini_batch else "prompts_per_step"
            raise ConfigError(
                f"{flag_of(STAGE, name)} {getattr(self, name)} x --rollouts {self.rollouts} must "
                f"be a multiple of --num-gpus {self.num_gpus}"
            )
        if self.keep_best and (
            self.val_file is None or not self.val_freq or self.val_freq % self.save_freq
        ):
            raise ConfigError(
                f"{flag_of(STAGE, 'keep_best')} needs --val-file, and a --val-freq that is a "
                "multiple of --save-freq: only a step that is validated and saved can be chosen"
            )


def grpo_overrides(settings: GrpoSettings) -> list[str]:
    """What verl's `ppo_trainer` configuration is told."""
    out_dir = settings.out_dir.absolute()
    val_file = settings.val_file or settings.train_file
    pairs: dict[str, Value] = {
        "algorithm.adv_estimator": "grpo",
        "algorithm.use_kl_in_reward": False,
        "algorithm.filter_groups.enable": settings.filter_groups,
        "algorithm.rollout_correction.bypass_mode": not settings.recompute_log_probs,
        "reward_model.reward_manager": "rewrite_r1",
        "reward.num_workers": 1 if settings.device == "cpu" else 8,
        "retriever.topk": settings.topk,
        "retriever.reward": settings.reward,
        "data.train_files": as_pattern(settings.train_file.absolute()),
        "data.val_files": as_pattern(val_file.absolute()),
        "data.val_max_samples": -1 if settings.val_file else 1,
        "data.train_batch_size": settings.prompts_per_step,
        "data.max_prompt_length": settings.max_prompt_length,
        "data.max_response_length": settings.max_response_length,
        "data.truncation": "error",
        "data.shuffle": True,
        "data.seed": settings.seed,
        "trainer.device": settings.device,
        "trainer.n_gpus_per_node": settings.num_gpus,
        "trainer.nnodes": 1,
        "trainer.total_training_steps": settings.total_steps,
        "trainer.total_epochs": settings.total_steps,  # never fewer epochs than steps
        "trainer.save_freq": settings.save_freq,
        "trainer.test_freq": settings.val_freq if settings.val_file and settings.val_freq else -1,
        "trainer.val_before_train": False,
        "trainer.logger": ["console", "file"],
        "trainer.project_name": "convsearch",
        "trainer.experiment_name": STAGE,
        "trainer.default_local_dir": out_dir / CHECKPOINTS,
        "trainer.max_actor_ckpt_to_keep": 2,
        "trainer.resume_mode": "auto",
        "rollout_dump.folder": out_dir / "rollouts" if settings.dump_rollouts else None,
        "hydra.run.dir": out_dir / CHECKPOINTS,
        "hydra.output_subdir": None,
    }
    if settings.keep_best:
        pairs["trainer.checkpoint_callback_class"] = KEEPER
    lines = [override(key, value) for key, value in pairs.items()]
    lines += _policy_overrides(settings) + _rollout_overrides(settings)
    return lines + (_cpu_overrides(settings) if settings.device == "cpu" else [])


def _policy_overrides(settings: GrpoSettings) -> list[str]:
    with_reference = settings.kl_coef > 0
    actor, ref = "actor_rollout_ref.actor", "actor_rollout_ref.ref"
    pairs: dict[str, Value] = {
        "actor_rollout_ref.model.path": settings.model_path.absolute(),
        "actor_rollout_ref.model.use_remove_padding": settings.device == "cuda",
        "actor_rollout_ref.model.enable_gradient_checkpointing": settings.device == "cuda",
        f"{actor}.strategy": "fsdp2",
        f"{actor}.ppo_mini_batch_size": settings.mini_batch or settings.prompts_per_step,
        f"{actor}.ppo_micro_batch_size_per_gpu": settings.micro_batch,
        f"{actor}.use_kl_loss": with_reference,
        f"{actor}.kl_loss_coef": settings.kl_coef,
        f"{actor}.kl_loss_type": "low_var_kl",
        f"{actor}.entropy_coeff": settings.entropy_coef,
        f"{actor}.clip_ratio": settings.clip_ratio,
        f"{actor}.clip_ratio_low": settings.clip_ratio,
        f"{actor}.clip_ratio_high": settings.clip_ratio,
        f"{actor}.optim.lr": settings.lr,
        f"{actor}.optim.lr_warmup_steps": settings.lr_warmup_steps,
        f"{actor}.optim.lr_scheduler_type": settings.lr_schedule,
        f"{actor}.data_loader_seed": settings.seed,
        f"{actor}.fsdp_config.seed": settings.seed,
        f"{actor}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        f"{actor}.checkpoint.load_contents": ["model", "optimizer", "extra"],
        f"{ref}.strategy": "fsdp2",
        f"{ref}.log_prob_micro_batch_size_per_gpu": settings.micro_batch,
    }
    lines = [override(key, value) for key, value in pairs.items()]
    lines += precision_overrides(f"{actor}.fsdp_config", settings.dtype)
    return lines + precision_overrides(f"{ref}.fsdp_config", settings.dtype)


def _rollout_overrides(settings: GrpoSettings) -> list[str]:
    rollout = "actor_rollout_ref.rollout"
    pairs: dict[str, Value] = {
        f"{rollout}.name": "hf_cpu" if settings.device == "cpu" else "vllm",
        f"{rollout}.n": settings.rollouts,
        f"{rollout}.temperature": settings.temperature,
        f"{rollout}.top_p": 1.0,
        f"{rollout}.top_k": -1,
        f"{rollout}.seed": settings.seed,
        f"{rollout}.dtype": settings.dtype,
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": settings.micro_batch,
        f"{rollout}.max_model_len": settings.max_prompt_length + settings.max_response_length,
    }
    return [override(key, value) for key, value in pairs.items()]


def _cpu_overrides(settings: GrpoSettings) -> list[str]:
    rollout = "actor_rollout_ref.rollout"
    samples = settings.prompts_per_step * settings.rollouts
    pairs: dict[str, Value] = {
        "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
        "actor_rollout_ref.actor.use_torch_compile": False,
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
        "actor_rollout_ref.ref.use_torch_compile": False,
        f"{rollout}.free_cache_engine": False,
        f"{rollout}.agent.num_workers": 1,
        f"+{rollout}.agent.agent_loop_manager_class": "convsearch_verl.batch_loop.BatchLoopManager",
        f"{rollout}.max_num_seqs": -(-samples // settings.num_gpus),
        "data.dataloader_num_workers": 0,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        "ray_kwargs.ray_init.num_cpus": 16,  # logical: Ray counts workers, not cores
        "+ray_kwargs.ray_init.num_gpus": settings.num_gpus,
        "+ray_kwargs.ray_init.include_dashboard": False,
    }
    return [override(key, value) for key, value in pairs.items()]


def run_grpo(
    settings: GrpoSettings,
    retriever_url: str,
    log_path: Path,
    metrics_path: Path,
    on_progress: ProgressCallback | None = None,
    *,
    fresh: bool = False,
) -> Path:
    """Trains and returns the model's folder, `out_dir/model`; one that was made by the same
    settings, from the same inputs and index, is returned as it is.

    retriever_url: a retrieval server that stays up for the whole training.
    An interrupted training goes on from its last checkpoint. metrics_path gets one line a step.
    fresh: starts over instead. Raises MissingFileError, CheckpointError, ConfigError for bad inputs
    and for an output that is not of these settings, RetrieverError for a server that does not
    answer, StageError if it fails.
    """
    target = settings.out_dir / MODEL
    require_verl()
    require_model(settings.model_path)
    rows = count_rows(settings.train_file, needs=_NEEDS)
    if rows < settings.prompts_per_step:
        raise ConfigError(
            f"{settings.train_file}: {rows} prompts do not fill one step of "
            f"{settings.prompts_per_step}; lower --prompts-per-step (grpo.prompts_per_step)"
        )
    if settings.val_file is not None:
        count_rows(settings.val_file, needs=_NEEDS)
    output = _output(settings, retriever_url, metrics_path, fresh=fresh)
    if output is None:
        return target
    checkpoints = settings.out_dir / CHECKPOINTS
    prepared = settings
    if latest_step(checkpoints) < settings.total_steps:
        prepared = check_grpo(settings, retriever_url, checkpoints)
    asking = asking_of_training(
        settings.model_path,
        settings.train_file,
        stage=STAGE,
        max_prompt_tokens=settings.max_prompt_length,
        max_response_tokens=settings.max_response_length,
        retriever_url=retriever_url,
    )
    settings.out_dir.mkdir(parents=True, exist_ok=True)
    output.begin(fresh=fresh)
    follower = MetricsFollower(
        metrics_path,
        stage=STAGE,
        total_steps=settings.total_steps,
        on_progress=on_progress,
    )
    env = device_environment(settings.device, settings.threads)
    env["RETRIEVER_URL"] = retriever_url
    env["VERL_FILE_LOGGER_PATH"] = str(follower.attempt_path.absolute())
    follower.require_finite(up_to=latest_step(checkpoints))
    if latest_step(checkpoints) < settings.total_steps:
        try:
            _train(prepared, env, log_path, follower)
        finally:
            follower.close()
    step = latest_step(checkpoints)
    if step < settings.total_steps:
        raise StageError(
            f"{STAGE}: ended after step {step} of {settings.total_steps} (log: {log_path})"
        )
    chosen, source = step, checkpoints / f"global_step_{step}" / "actor" / "huggingface"
    if settings.keep_best:
        chosen, source = best_step(read_metrics(metrics_path), checkpoints)
    publish(source, target, like=settings.model_path, asking=asking)
    write_passport(
        settings.out_dir / "run.json",
        stage=STAGE,
        settings=asdict(settings),
        inputs=[settings.model_path, settings.train_file],
        counts={"prompts": rows, "steps": step, "published_step": chosen},
        seed=settings.seed,
        made=output.record,
    )
    output.end()
    shutil.rmtree(checkpoints)
    return target


def _output(
    settings: GrpoSettings, retriever_url: str, metrics_path: Path, *, fresh: bool
) -> Output | None:
    """What is to be made; None where it is finished. The server is asked last, so that what
    differs otherwise is said without one."""
    output = grpo_output(settings, metrics_path)
    # what the steps done so far do not depend on
    steps = ("total_steps",) if settings.lr_schedule == "constant" else ()
    free = ("dump_rollouts", *steps)
    output.standing(fresh=fresh, unknown=("index",), free=free, kept=False)
    made_of = {**output.made_of, "index": served_index(retriever_url)}
    output = replace(output, made_of=made_of)
    standing = output.standing(fresh=fresh, free=free)
    done = latest_step(settings.out_dir / CHECKPOINTS)
    if standing == "unfinished" and done > settings.total_steps:
        raise ConfigError(
            f"{settings.out_dir}: {done} steps are done, and {settings.total_steps} asked for; "
            f"take {done} or more. {WAY_OUT}"
        )
    return None if standing == "finished" else output


def _train(
    settings: GrpoSettings, env: Mapping[str, str], log_path: Path, follower: MetricsFollower
) -> None:
    """Runs verl; again where only Ray did not come up in time, which a busy machine causes."""
    for attempt in range(1, RAY_ATTEMPTS + 1):
        try:
            run_logged(
                [sys.executable, "-m", "verl.trainer.main_ppo", *grpo_overrides(settings)],
                stage=STAGE,
                env=env,
                log_path=log_path,
                time_limit_s=settings.time_limit_s,
                on_tick=follower.poll,
            )
        except StageError as error:
            if RAY_NOT_UP not in str(error) or attempt == RAY_ATTEMPTS:
                raise
            log.warning("Ray did not come up in time, attempt %d of %d", attempt, RAY_ATTEMPTS)
        else:
            return
