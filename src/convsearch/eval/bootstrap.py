"""Confidence intervals of means over turns. Turns of one conversation are not independent, so whole
conversations are drawn."""

from collections.abc import Mapping, Sequence

import numpy as np

from convsearch.errors import ConfigError, DataError

RESAMPLES = 1000
LEVEL = 0.95


def bootstrap_interval(
    values_by_conv: Mapping[str, Sequence[float]],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float]:
    """`bootstrap_intervals` of one value a turn."""
    named = {conv: [{"": value} for value in values] for conv, values in values_by_conv.items()}
    return bootstrap_intervals(named, seed=seed, resamples=resamples, level=level)[""]


def bootstrap_intervals(
    values_by_conv: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, tuple[float, float]]:
    """Name -> percentile bootstrap interval (low, high) of the mean over all turns.

    values_by_conv: for each conversation the values of its turns by name, every turn with the same
    names; at least one turn in all. The same conversations are drawn for every name. The same seed
    gives the same intervals whatever the order of the conversations.
    Raises DataError where there is no value, ConfigError for a level outside (0, 1).
    """
    if not 0 < level < 1 or resamples < 1:
        raise ConfigError(f"need 0 < level < 1 and resamples >= 1, got {level}, {resamples}")
    groups = [values_by_conv[conv] for conv in sorted(values_by_conv) if values_by_conv[conv]]
    if not groups:
        raise DataError("there is no value to draw an interval from")
    names = list(groups[0][0])
    sums_CN = np.array([[float(np.sum([t[n] for t in turns])) for n in names] for turns in groups])
    sizes_C = np.array([len(turns) for turns in groups])
    rng = np.random.default_rng(seed)
    drawn_RC = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
    means_RN = (drawn_RC @ sums_CN) / (drawn_RC @ sizes_C)[:, None]
    low_N, high_N = np.quantile(means_RN, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(low_N[i]), float(high_N[i])) for i, name in enumerate(names)}
