"""Confidence interval of a mean over turns. Turns of one conversation are not independent, so whole
conversations are drawn."""

from collections.abc import Mapping, Sequence

import numpy as np

from convsearch.errors import ConfigError, DataError


def bootstrap_interval(
    values_by_conv: Mapping[str, Sequence[float]],
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean over all values.

    values_by_conv: the values of each conversation; at least one in all. The same seed gives the
    same interval whatever the order of the conversations.
    Raises DataError where there is no value, ConfigError for a level outside (0, 1).
    """
    if not 0 < level < 1 or resamples < 1:
        raise ConfigError(f"need 0 < level < 1 and resamples >= 1, got {level}, {resamples}")
    groups = [values_by_conv[name] for name in sorted(values_by_conv) if values_by_conv[name]]
    if not groups:
        raise DataError("there is no value to draw an interval from")
    sums_C = np.array([float(np.sum(group)) for group in groups])
    sizes_C = np.array([len(group) for group in groups])
    rng = np.random.default_rng(seed)
    drawn_RC = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
    means_R = (drawn_RC @ sums_C) / (drawn_RC @ sizes_C)
    low, high = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
