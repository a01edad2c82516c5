"""Reinforcement learning by rank: verl's `main_ppo` (GRPO, FSDP2) with the reward `rewrite_r1`."""

import logging
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from convsearch.errors import ConfigError, StageError
from convsearch.made import WAY_OUT, Output
from convsearch.passport import write_passport
from convsearch.train.asking import asking_of_training
from convsearch.train.best_step import best_step
from convsearch.train.checkpoint import latest_step, publish, require_model
from convsearch.train.device import (
    device_environment,
    require_verl,
)
from convsearch.train.grpo_settings import CHECKPOINTS, STAGE, GrpoSettings, grpo_overrides
from convsearch.train.launch import run_logged
from convsearch.train.metrics import MetricsFollower, ProgressCallback, read_metrics
from convsearch.train.outputs import grpo_output, served_index
from convsearch.train.preflight import check_grpo
from convsearch.train.rows import count_rows

log = logging.getLogger(__name__)

MODEL = "model"
RAY_NOT_UP = "The current node timed out during startup"
"""Ray's words where its daemons took longer than the 30 s it allows, a constant in its source."""
RAY_ATTEMPTS = 3
_NEEDS = ("prompt", "reward_model", "data_source")


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
