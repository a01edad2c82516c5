"""What a run over a data set folder adds: a policy built for the data, and what is said where there
is too little to learn from."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from convsearch.errors import StageError
from convsearch.pipeline.config import PipelineConfig
from convsearch.pipeline.layout import RunLayout
from convsearch.pipeline.own_run import few_examples, instead_of_training, nano_settings
from convsearch.pipeline.runner import Counts, Progress, Stage

POLICY = "policy"
"""The stage that builds a nano policy, and its folder in the run."""

log = logging.getLogger(__name__)


def policy_stages(config: PipelineConfig, layout: RunLayout) -> list[Stage]:
    """The stage that builds a nano policy; none where a policy is given."""
    if config.policy is not None:
        return []
    return [
        Stage(
            name=POLICY,
            run=lambda progress: _build_policy(config, layout, progress),
            settings={**config.section("nano"), "seed": config.seed},
            needs=("data",),
            folders=(layout.policy,),
            outputs=(layout.policy / "config.json",),
        )
    ]


def _build_policy(config: PipelineConfig, layout: RunLayout, progress: Progress) -> Counts:
    """Builds a nano policy for the data of the run; returns how exactly it copies."""
    from convsearch.nano.pretrain import Domain, build_nano

    domain = replace(Domain.load(layout.data), name=config.dataset)
    statistics = domain.statistics
    settings = nano_settings(config.nano, statistics.num_passages, statistics.num_messages)
    report = build_nano(
        [domain],
        layout.policy,
        replace(settings, seed=config.seed),
        command=f"convsearch quickstart --dataset {config.source}",
        on_progress=lambda step, loss: progress(step, settings.steps, f"steps, loss {loss:.2f}"),
    )
    return {
        "copied_percent": round(100 * report.copied_share),
        "malformed": report.num_malformed,
        "responses": report.num_responses,
    }


def warn_if_few(config: PipelineConfig, counts: Counts) -> None:
    """Says after a distillation that its examples are few; see `few_examples`."""
    if line := few_examples(config, counts):
        log.warning("%s", line.removeprefix("warning: "))


@contextmanager
def told_if_few(config: PipelineConfig) -> Iterator[None]:
    """Adds to the error of a distillation that found too little what to do instead."""
    try:
        yield
    except StageError as error:
        if config.kind != "folder":
            raise
        raise StageError(f"{error}. {instead_of_training(config)}") from None
