"""`tiles.multiply` in plain loops, so that what is around it is tested on any processor."""

import numpy as np
import pytest
from numba import njit

from retriever_server.dense import tiles
from retriever_server.dense.bands import SIDE
from retriever_server.dense.counting import (
    Unit,
    counting_loop,
    nothing_to_begin,
    nothing_to_end,
)
from retriever_server.dense.formats import Floats
from retriever_server.dense.tile_filter import PART_STEPS, amx_count


@njit(nogil=True)
def _value(bits):
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@njit(nogil=True)
def _multiply(bits_BD, row, step, queries, group, num_steps, sums, place, facts):
    for i in range(SIDE):
        for j in range(SIDE):
            total = np.float32(0) if step == 0 else sums[place + i, j]
            for s in range(step, step + num_steps):
                for d in range(SIDE):
                    of_query = queries[group, s, j // 16, d // 2, j % 16, d % 2]
                    total += _value(bits_BD[row + i, s * SIDE + d]) * _value(of_query)
            sums[place + i, j] = total


@njit(nogil=True)
def _multiply_wrongly(bits_BD, row, step, queries, group, num_steps, sums, place, facts):
    _multiply(bits_BD, row, step, queries, group, num_steps, sums, place, facts)
    sums[place + SIDE - 1, SIDE - 1] += np.float32(1e6)


plain_count = counting_loop(Unit(nothing_to_begin, _multiply, nothing_to_end, PART_STEPS))
wrong_count = counting_loop(Unit(nothing_to_begin, _multiply_wrongly, nothing_to_end, PART_STEPS))

COUNTS = [
    pytest.param(plain_count, id="plain"),
    pytest.param(
        amx_count,
        id="amx",
        marks=pytest.mark.skipif(not tiles.available(), reason="no AMX here"),
    ),
]
"""Of a fixture: the loop in plain products, and in AMX where this processor has it."""


def hidden_order(num: int, num_queries: int) -> tuple[Floats, Floats]:
    """(passages, queries) of 64 dimensions: queries are large where passages are equal and small
    where they differ, so that rounding the query hides their order."""
    rng = np.random.default_rng(5)
    values_ND = np.ones((num, 64), np.float32)
    values_ND[:, 32:] = rng.choice([-1.0, -0.5, 0.25, 1.0], (num, 32))
    queries_QD = rng.standard_normal((num_queries, 64)).astype(np.float32)
    queries_QD[:, 32:] *= 1e-3
    return values_ND, queries_QD
