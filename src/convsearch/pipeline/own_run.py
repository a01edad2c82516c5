"""A run over any data set folder: what is trained and measured on, with which policy, and whether
there is enough of it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from convsearch.data.dataset import (
    PASSPORT,
    TURN_INFO,
    Dataset,
    find_file,
    load_dataset,
    without_corpus,
)
from convsearch.errors import ConfigError
from convsearch.nano.settings import NanoSettings
from convsearch.pipeline.config import PipelineConfig
from convsearch.prompts import TrainedStyle, trained_style
from convsearch.prompts.asking import read_asking

TRAIN_SPLIT = "train"
EVAL_SPLITS = ("test", "dev")
"""What is evaluated: the first that the data set has."""
ENOUGH_TURNS = 300
"""Training turns below which a warning is due: a judgement, not measured."""
ENOUGH_EXAMPLES = 100
"""The same for examples that self-distillation found."""
NANO_MARK = "<rewrite>"
"""A token of every nano policy, and of no other model."""
_CHAT = {
    "distill": {"max_tokens": 512},
    "sft": {"max_length": 2048},
    "grpo": {"max_prompt_length": 1536, "max_response_length": 512},
}
"""Room of a general chat model; the sizes of the presets are those of nano policies."""


def own_run(base: PipelineConfig, folder: Path, policy: Path | None) -> PipelineConfig:
    """The run of `base` over the data set folder instead; a policy of None is built by the run.

    Raises MissingFileError or DataError for a folder that is no data set, ConfigError where it
    cannot be trained or measured on, or where the policy was made for a style that is not trained.
    """
    data = load_dataset(folder)
    config = dataclasses.replace(
        base,
        dataset=data.name,
        kind="folder",
        source=folder,
        policy=policy,
        style=style_of(policy) if policy else "nano",
        data=dataclasses.replace(base.data, eval_split=_eval_split(data)),
    )
    return config if config.style == "nano" else _with_room(config)


def check_own_run(config: PipelineConfig) -> list[str]:
    """Before anything is made: says what is trained and measured on, and warns where it is little.

    Returns lines for people. Raises ConfigError with fewer than two conversations to train or to
    measure on, or without a corpus.
    """
    assert config.source is not None
    data = load_dataset(config.source)
    if not data.corpus_path.is_file():
        raise ConfigError(
            f"{config.source}: a run needs the passages; {without_corpus(config.source)}"
        )
    sizes = {}
    for split, use in ((TRAIN_SPLIT, "train"), (config.data.eval_split, "measure")):
        turns = [turn for turn in data.all_turns if turn.split == split]
        sizes[split] = len(turns), len({turn.conv_id for turn in turns})
        if sizes[split][1] < 2:
            raise ConfigError(
                f"{data.turns_path}: {sizes[split][1]} conversations of split {split!r} to {use} "
                'on, two or more are needed; name other splits, or give "convsearch data own" '
                "another --test-share and --dev-share"
            )
    (train, train_talks), (measured, talks) = sizes[TRAIN_SPLIT], sizes[config.data.eval_split]
    why = "" if config.data.eval_split == EVAL_SPLITS[0] else " (there is no test split)"
    lines = [
        f"{data.name}: trains on {train:,} turns of {train_talks:,} conversations (split train), "
        f"measures on {measured:,} turns of {talks:,} (split {config.data.eval_split}{why})"
    ]
    if train < ENOUGH_TURNS:
        lines.append(
            f"warning: {train:,} training turns are few: {ENOUGH_TURNS} or more are wanted, and "
            "what is learnt from fewer may find less than the question as asked. "
            + instead_of_training(config)
        )
    return lines


def few_examples(config: PipelineConfig, counts: Mapping[str, int]) -> str:
    """A warning after self-distillation; empty where it found enough.

    counts: of the stage `distill`.
    """
    found = counts.get("train", 0)
    if config.kind != "folder" or found >= ENOUGH_EXAMPLES:
        return ""
    return (
        f"warning: self-distillation found {found:,} examples in {counts.get('turns', 0):,} "
        f"training turns; {ENOUGH_EXAMPLES} or more are wanted. " + instead_of_training(config)
    )


def instead_of_training(config: PipelineConfig) -> str:
    """What needs no training, as the end of a warning."""
    named = f"--dataset {config.source} --split {config.data.eval_split}"
    return (
        'Without training: "convsearch eval '
        f'{named} --baseline history", or any chat model behind an OpenAI-compatible endpoint: '
        f'"convsearch infer {named} --engine openai --engine-url URL --model NAME --prompt plain '
        '--out rewrites.jsonl" and "convsearch eval '
        f'{named} --prompted chat=rewrites.jsonl" (docs/own-data.md)'
    )


def style_of(policy: Path) -> TrainedStyle:
    """The prompt style that a policy was made for: what its folder says, else `nano` for a
    tokenizer with the tags of nano policies, else `instruct`.

    Raises ConfigError for a style that is not trained, and what `read_asking` raises.
    """
    asking = read_asking(policy)
    if asking is not None:
        return trained_style(asking.style)
    tokenizer = policy / "tokenizer.json"
    is_nano = tokenizer.is_file() and NANO_MARK in tokenizer.read_text(encoding="utf-8")
    return "nano" if is_nano else "instruct"


def nano_settings(settings: NanoSettings, num_passages: int, num_messages: int) -> NanoSettings:
    """The settings for a data set of this size: in a small one, words of fewer than eight passages
    are content words, where otherwise those of fewer than one in 20 are."""
    least = max(1, min(num_passages, num_messages))
    floor = max(0.0, min(settings.spans.idf_floor, math.log(least / 8)))
    return dataclasses.replace(settings, spans=dataclasses.replace(settings.spans, idf_floor=floor))


def dataset_files(folder: Path) -> Sequence[Path]:
    """The files of a data set folder that a run depends on."""
    data = load_dataset(folder)
    others = [find_file(folder, name) for name in (TURN_INFO, PASSPORT)]
    return [data.turns_path, data.corpus_path, data.qrels_path, *filter(None, others)]


def _eval_split(data: Dataset) -> str:
    there = {turn.split for turn in data.all_turns}
    for split in EVAL_SPLITS:
        if split in there:
            return split
    raise ConfigError(
        f"{data.turns_path}: no turns of split test or dev to measure on (splits here: "
        f'{", ".join(sorted(there))}); give "convsearch data own" a --test-share, or name splits'
    )


def _with_room(config: PipelineConfig) -> PipelineConfig:
    sections = {
        name: dataclasses.replace(getattr(config, name), **values) for name, values in _CHAT.items()
    }
    sampling = dataclasses.replace(config.infer.sampling, max_tokens=_CHAT["distill"]["max_tokens"])
    infer = dataclasses.replace(config.infer, sampling=sampling)
    return dataclasses.replace(config, infer=infer, **sections)
