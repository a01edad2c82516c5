"""Supervised fine-tuning on self-distilled rewrites: verl's `sft_trainer` with FSDP2."""

import logging
import os
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from convsearch.errors import ConfigError, MissingFileError, StageError
from convsearch.passport import write_passport
from convsearch.train.asking import asking_of_training
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
from convsearch.train.metrics import MetricsFollower, ProgressCallback
from convsearch.train.outputs import sft_output
from convsearch.train.overrides import override
from convsearch.train.preflight import check_sft
from convsearch.train.preflight.batches import check_sft_batches
from convsearch.train.rows import count_rows

logger = logging.getLogger(__name__)

STAGE = "sft"
CHECKPOINTS = "checkpoints"
MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class SftSettings:
    """One fine-tuning. The defaults are the paper's (arXiv 2505.15776, appendix), on 8 GPUs."""

    model_path: Path
    """Model to start from, in Hugging Face form."""
    train_file: Path
    """Parquet with a column `messages` that ends in the answer to learn."""
    val_file: Path | None = None
    """The same for the validation loss; None leaves it out."""
    out_dir: Path
    """Folder of checkpoints and result."""
    epochs: int = 2
    """Passes over the training file."""
    batch: int = 64
    """Examples in one update, over all processes. What does not fill a batch waits for the next
    epoch, which is shuffled anew."""
    micro_batch: int = 4
    """Examples in one forward pass of one process."""
    lr: float = 1e-5
    """Peak learning rate; it falls along a cosine after the warm-up."""
    warmup_ratio: float = 0.1
    """Share of all updates in which the rate rises."""
    weight_decay: float = 0.01
    """AdamW's decay."""
    max_length: int = 3072
    """Tokens of prompt and answer together; a longer example stops the training by name."""
    nproc: int = 8
    """Processes; one a GPU."""
    device: Device = "cuda"
    """Where it runs."""
    dtype: Dtype = "bfloat16"
    """Arithmetic. Weights and optimizer are kept in float32."""
    threads: int = 0
    """On CPUs, threads of each process; 0 divides the cores among the processes."""
    time_limit_s: float = 24 * 3600.0
    """The training is stopped after this."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "micro_batch", "lr", "max_length", "nproc", "time_limit_s"):
            check_positive(flag_of(STAGE, name), getattr(self, name))
        for name in ("warmup_ratio", "weight_decay", "threads"):
            check_positive(flag_of(STAGE, name), getattr(self, name), zero_allowed=True)
        check_sft_batches(batch=self.batch, micro_batch=self.micro_batch, nproc=self.nproc)


def sft_overrides(settings: SftSettings) -> list[str]:
    """What verl's `sft_trainer_engine` configuration is told."""
    checkpoints = settings.out_dir.absolute() / CHECKPOINTS
    pairs = {
        "model.path": settings.model_path.absolute(),
        "model.use_remove_padding": settings.device == "cuda",
        "model.enable_gradient_checkpointing": settings.device == "cuda",
        "engine.strategy": "fsdp2",
        "engine.use_torch_compile": settings.device == "cuda",
        "data.train_files": settings.train_file.absolute(),
        "data.val_files": settings.val_file.absolute() if settings.val_file else None,
        "data.train_batch_size": settings.batch,
        "data.micro_batch_size_per_gpu": settings.micro_batch,
        "data.use_dynamic_bsz": False,
        "data.max_length": settings.max_length,
        "data.num_workers": 0,
        "optim.lr": settings.lr,
        "optim.lr_warmup_steps_ratio": settings.warmup_ratio,
        "optim.weight_decay": settings.weight_decay,
        "optim.betas": [0.9, 0.95],
        "optim.lr_scheduler_type": "cosine",
        "trainer.device": settings.device,
        "trainer.n_gpus_per_node": settings.nproc,
        "trainer.total_epochs": settings.epochs,
        "trainer.save_freq": "after_each_epoch",
        "trainer.test_freq": "after_each_epoch" if settings.val_file else -1,
        "trainer.logger": ["console", "file"],
        "trainer.project_name": "convsearch",
        "trainer.experiment_name": STAGE,
        "trainer.default_local_dir": checkpoints,
        "trainer.max_ckpt_to_keep": 2,
        "trainer.resume_mode": "auto",
        "checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        "checkpoint.load_contents": ["model", "optimizer", "extra"],
        "hydra.run.dir": checkpoints,
        "hydra.output_subdir": None,
    }
    lines = [override(key, value) for key, value in pairs.items()]
    lines += precision_overrides("engine", settings.dtype)
    if settings.device == "cpu":
        lines.append(override("+model.override_config.attn_implementation", "sdpa"))
    return lines


def run_sft(
    settings: SftSettings,
    log_path: Path,
    on_progress: ProgressCallback | None = None,
    *,
    fresh: bool = False,
) -> Path:
    """Trains and returns the model's folder, `out_dir/model`; one that was made by the same
    settings and from the same inputs is returned as it is.

    An interrupted training goes on from its last epoch. Metrics are in `out_dir/metrics.jsonl`.
    fresh: starts over instead. Raises MissingFileError, CheckpointError, ConfigError for bad inputs
    and for an output that is not of these settings, StageError if it fails.
    """
    target = settings.out_dir / MODEL
    require_verl()
    require_model(settings.model_path)
    rows = count_rows(settings.train_file, needs=())
    if rows < settings.batch:
        raise ConfigError(
            f"{settings.train_file}: {rows} examples do not fill one batch of {settings.batch}; "
            "lower --batch (sft.batch) or distil more"
        )
    fitted = _fit_validation(settings)
    output = sft_output(settings)
    if output.standing(fresh=fresh) == "finished":
        return target
    settings = fitted
    checkpoints = settings.out_dir / CHECKPOINTS
    prepared = check_sft(settings, checkpoints)
    rows = count_rows(prepared.train_file, needs=("messages",))
    asking = asking_of_training(
        settings.model_path, settings.train_file, stage=STAGE, column="messages"
    )
    total_steps = settings.epochs * (rows // settings.batch)
    settings.out_dir.mkdir(parents=True, exist_ok=True)
    output.begin(fresh=fresh)
    follower = MetricsFollower(
        settings.out_dir / "metrics.jsonl",
        stage=STAGE,
        total_steps=total_steps,
        on_progress=on_progress,
    )
    threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.nproc)
    env = device_environment(settings.device, threads)
    env["VERL_FILE_LOGGER_PATH"] = str(follower.attempt_path.absolute())
    follower.require_finite(up_to=latest_step(checkpoints))
    if latest_step(checkpoints) < total_steps:
        try:
            run_logged(
                [*_launcher(settings), "-m", "verl.trainer.sft_trainer", *sft_overrides(prepared)],
                stage=STAGE,
                env=env,
                log_path=log_path,
                time_limit_s=settings.time_limit_s,
                on_tick=follower.poll,
            )
        finally:
            follower.close()
    step = latest_step(checkpoints)
    if step < total_steps:
        raise StageError(f"{STAGE}: ended after step {step} of {total_steps} (log: {log_path})")
    source = checkpoints / f"global_step_{step}" / "huggingface"
    publish(source, target, like=settings.model_path, asking=asking)
    write_passport(
        settings.out_dir / "run.json",
        stage=STAGE,
        settings=asdict(settings),
        inputs=[settings.model_path, settings.train_file],
        counts={"examples": rows, "steps": step},
        made=output.record,
    )
    output.end()
    shutil.rmtree(checkpoints)
    return target


def _launcher(settings: SftSettings) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=1",
        f"--nproc_per_node={settings.nproc}",
    ]


def _fit_validation(settings: SftSettings) -> SftSettings:
    """verl leaves out a last, partial batch: of a file smaller than one, nothing would be left."""
    if settings.val_file is None:
        return settings
    if not settings.val_file.is_file():
        raise MissingFileError(f"{settings.val_file}: no such file; run the distillation first")
    rows = count_rows(settings.val_file, needs=())
    if rows >= settings.batch:
        return settings
    logger.warning(
        "%s: %d examples do not fill one batch of %d; no validation loss is computed",
        settings.val_file,
        rows,
        settings.batch,
    )
    return replace(settings, val_file=None)
