"""What a GRPO training is, and what verl's `ppo_trainer` is told of it."""

from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import ConfigError
from convsearch.rewards.shapes import RewardShape, check_shape
from convsearch.train.best_step import KEEPER
from convsearch.train.device import (
    Device,
    Dtype,
    check_positive,
    flag_of,
    precision_overrides,
)
from convsearch.train.overrides import Value, override
from convsearch.train.preflight.prepared import as_pattern

STAGE = "grpo"
CHECKPOINTS = "checkpoints"
LR_SCHEDULES = ("constant", "cosine")
_ABOVE_ZERO = (
    *("total_steps", "prompts_per_step", "micro_batch", "lr", "clip_ratio", "temperature", "topk"),
    *("max_prompt_length", "max_response_length", "num_gpus", "save_freq", "time_limit_s"),
)
_ZERO_OR_MORE = (
    *("mini_batch", "lr_warmup_steps", "kl_coef", "entropy_coef"),
    *("val_freq", "seed", "threads"),
)


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
