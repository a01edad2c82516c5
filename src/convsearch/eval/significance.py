"""Whether two methods differ by more than chance: a paired randomisation test, and Holm's
correction where several tests are made at once.

Turns of one conversation share topic and history, so under the null hypothesis only the whole
conversation may swap its two methods: its sum of differences changes sign as one.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from convsearch.errors import ConfigError, DataError

PERMUTATIONS = 9999
"""Random sign flips. Their p values are (hits + 1) / (flips + 1), so none is below 0.0001."""
_FLIPS_AT_ONCE = 500
_TIE = 1e-9
"""Sums this near to each other count as equal; rounding differs with their order."""


def randomisation_test(
    differences_by_unit: Mapping[str, Sequence[Sequence[float]]],
    *,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> list[float]:
    """Two-sided p value of each metric's mean difference, by flipping the signs of whole units.

    differences_by_unit: exchangeable unit (a conversation) -> one row for each of its turns, a row
    being the differences of the metrics, first method minus second. Where 2^units is at most
    `permutations`, all flips are enumerated and the value is exact; else they are drawn by the
    seed, the same ones for every metric. The order of units and of methods does not matter.
    Raises DataError where there is no turn, ConfigError for less than one permutation.
    """
    if permutations < 1:
        raise ConfigError(f"permutations must be 1 or more, got {permutations}")
    names = [name for name in sorted(differences_by_unit) if differences_by_unit[name]]
    if not names:
        raise DataError("there is no turn to test a difference on")
    sums_UM = np.array([np.sum(differences_by_unit[name], axis=0) for name in names])
    bar_M = np.abs(sums_UM.sum(axis=0)) - _TIE
    if 2 ** len(names) <= permutations:
        signs_FU = np.array(list(itertools.product((1.0, -1.0), repeat=len(names))))
        return [float(p) for p in (np.abs(signs_FU @ sums_UM) >= bar_M).mean(axis=0)]
    rng = np.random.default_rng(seed)
    hits_M = np.zeros(sums_UM.shape[1])
    for start in range(0, permutations, _FLIPS_AT_ONCE):
        size = (min(_FLIPS_AT_ONCE, permutations - start), len(names))
        signs_FU = rng.integers(0, 2, size=size) * 2.0 - 1.0
        hits_M += (np.abs(signs_FU @ sums_UM) >= bar_M).sum(axis=0)
    return [float(p) for p in (hits_M + 1) / (permutations + 1)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values that may each be held against the level of the whole
    family, in the order given.

    The k-th smallest of m is multiplied by m - k + 1, and none may fall below one before it.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = highest
    return corrected
