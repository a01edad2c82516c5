"""All checks of a training in order, the quick ones first; nothing is written before the last."""

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.errors import ConfigError
from convsearch.train.preflight.batches import check_grpo_batches
from convsearch.train.preflight.chats import (
    PROMPT_FORM,
    SFT_FORM,
    check_target,
    prompt_chat,
    sft_chat,
)
from convsearch.train.preflight.lengths import TokenCounter, check_context, context_of, fit
from convsearch.train.preflight.machine import check_disk, check_gpus, check_sampler
from convsearch.train.preflight.prepared import check_name, read_rows, write_rows
from convsearch.train.preflight.server import check_server, sample_targets

if TYPE_CHECKING:
    from convsearch.train.grpo_settings import GrpoSettings
    from convsearch.train.sft import SftSettings

logger = logging.getLogger(__name__)

TRAIN_FILE = "prepared_train.parquet"
VAL_FILE = "prepared_val.parquet"
"""In the folder of the run, where the rows are not trained on as they were written."""


def check_grpo(settings: "GrpoSettings", retriever_url: str, checkpoints: Path) -> "GrpoSettings":
    """The settings for the trainer, with the files that it reads.

    checkpoints: folder of those that an interrupted run has left.
    Raises ConfigError for sizes that do not divide, too few GPUs, lengths beyond the model, limits
    that leave no prompt; DataError for rows, by file and number, and for a server of another data
    set; RetrieverError where none answers; WriteError where the checkpoints will not fit.
    """
    started = time.monotonic()
    check_gpus(settings.device, settings.num_gpus, "--num-gpus")
    check_sampler(settings.device)
    _check_batches(settings)
    files = [settings.train_file, *([settings.val_file] if settings.val_file else [])]
    for path in files:
        check_name(path)
    check_context(
        settings.model_path,
        settings.max_prompt_length,
        settings.max_response_length,
        settings.device,
    )
    check_disk(
        settings.model_path,
        settings.out_dir,
        checkpoints=-(-settings.total_steps // settings.save_freq),
        written=checkpoints,
    )
    read = partial(
        read_rows, column="prompt", read=prompt_chat, form=PROMPT_FORM, check=check_target
    )
    rows = [read(path) for path in files]
    for path in files:
        check_server(retriever_url, path, sample_targets(path))
    counter = TokenCounter(settings.model_path, with_answer=False)
    fitted = [
        fit(
            one.chats,
            counter,
            limit=settings.max_prompt_length,
            flag="--max-prompt-length",
            where=one.path,
            what="prompts",
        )
        for one in rows
    ]
    left = sum(chat is not None for chat in fitted[0])
    if left < settings.prompts_per_step:
        raise ConfigError(
            f"{settings.train_file}: {left} prompts that are short enough do not fill one step of "
            f"{settings.prompts_per_step}; raise --max-prompt-length or lower --prompts-per-step"
        )
    targets = [settings.out_dir / name for name in (TRAIN_FILE, VAL_FILE)]
    paths = [write_rows(*pair) for pair in zip(rows, fitted, targets, strict=False)]
    logger.info("checked before the start in %.1f s", time.monotonic() - started)
    return replace(settings, train_file=paths[0], val_file=paths[1] if settings.val_file else None)


def check_run(sft: "SftSettings", grpo: "GrpoSettings", model: Path | None, folder: Path) -> None:
    """What is known of both trainings of a run before its first stage: names, GPUs, batches, room.

    model: the policy that the run starts from, None where the run builds it. folder: of the run.
    Raises as `check_grpo` does.
    """
    check_name(folder)
    check_gpus(sft.device, sft.nproc, "sft.nproc", "sft.device")
    check_gpus(grpo.device, grpo.num_gpus, "grpo.num_gpus", "grpo.device")
    check_sampler(grpo.device)
    _check_batches(grpo)
    if model is None:
        return
    check_context(model, grpo.max_prompt_length, grpo.max_response_length, grpo.device)
    steps = -(-grpo.total_steps // grpo.save_freq)
    check_disk(model, folder, checkpoints=max(sft.epochs, steps), written=folder)


def _check_batches(settings: "GrpoSettings") -> None:
    check_grpo_batches(
        prompts_per_step=settings.prompts_per_step,
        rollouts=settings.rollouts,
        mini_batch=settings.mini_batch,
        micro_batch=settings.micro_batch,
        num_gpus=settings.num_gpus,
    )


def check_sft(settings: "SftSettings", checkpoints: Path) -> "SftSettings":
    """As `check_grpo`, for a fine-tuning, which needs no server."""
    started = time.monotonic()
    check_gpus(settings.device, settings.nproc, "--nproc")
    check_disk(
        settings.model_path, settings.out_dir, checkpoints=settings.epochs, written=checkpoints
    )
    files = [settings.train_file, *([settings.val_file] if settings.val_file else [])]
    rows = [read_rows(path, "messages", sft_chat, SFT_FORM) for path in files]
    counter = TokenCounter(settings.model_path, with_answer=True)
    context = context_of(settings.model_path) or settings.max_length
    fitted = [
        fit(
            one.chats,
            counter,
            limit=min(settings.max_length, context),
            flag="--max-length" if settings.max_length <= context else "the model's context of",
            where=one.path,
            what="examples",
        )
        for one in rows
    ]
    left = sum(chat is not None for chat in fitted[0])
    if left < settings.batch:
        raise ConfigError(
            f"{settings.train_file}: {left} examples that are short enough do not fill one batch "
            f"of {settings.batch}; raise --max-length or lower --batch"
        )
    targets = [settings.out_dir / name for name in (TRAIN_FILE, VAL_FILE)]
    paths = [write_rows(*pair) for pair in zip(rows, fitted, targets, strict=False)]
    logger.info("checked before the start in %.1f s", time.monotonic() - started)
    validates = len(fitted) > 1 and sum(chat is not None for chat in fitted[1]) >= settings.batch
    return replace(settings, train_file=paths[0], val_file=paths[1] if validates else None)
