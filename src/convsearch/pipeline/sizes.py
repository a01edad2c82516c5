"""Sizes of batches where there is less to train on than they were made for."""

from dataclasses import replace

from convsearch.errors import ConfigError
from convsearch.train.grpo_settings import GrpoSettings
from convsearch.train.sft import SftSettings


def fitted_sft(settings: SftSettings, num_examples: int) -> SftSettings:
    """The settings with a batch that the examples fill; unchanged where they do already.

    Raises ConfigError where there are fewer examples than processes.
    """
    if num_examples >= settings.batch:
        return settings
    share = num_examples // settings.nproc
    if not share:
        raise ConfigError(
            f"{num_examples} examples for {settings.nproc} processes; lower sft.nproc, or distil "
            "more"
        )
    micro = _divisor(share, settings.micro_batch)
    return replace(settings, batch=share * settings.nproc, micro_batch=micro)


def held_out_turns(wanted: int, num_turns: int) -> int:
    """How many turns GRPO holds out to choose its best step by: a fifth of them at most."""
    return max(1, min(wanted, num_turns // 5))


def fitted_grpo(settings: GrpoSettings, num_prompts: int) -> GrpoSettings:
    """The settings with no more prompts a step than there are, and forward passes that divide its
    responses; unchanged where the prompts are enough. Raises ConfigError where the responses of a
    step cannot be shared out over the processes."""
    if num_prompts >= settings.prompts_per_step:
        return settings
    share = num_prompts * settings.rollouts // settings.num_gpus
    return replace(
        settings,
        prompts_per_step=num_prompts,
        mini_batch=0,
        micro_batch=_divisor(max(1, share), settings.micro_batch),
    )


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is no more than `most`."""
    return next(n for n in range(min(number, most), 0, -1) if number % n == 0)
