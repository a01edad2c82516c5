"""`tiles.multiply` in plain loops, so that what is around it is tested on any processor."""

import numpy as np
from numba import njit

from retriever_server.dense.tile_filter import Unit, counting_loop
from retriever_server.dense.tiles import SIDE


@njit(nogil=True)
def _begin(configuration):
    pass


@njit(nogil=True)
def _end():
    pass


@njit(nogil=True)
def _value(bits):
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@njit(nogil=True)
def _multiply(bits_BD, row, step, queries, group, query_step, num_steps, sums, place):
    for i in range(SIDE):
        for j in range(SIDE):
            total = np.float32(0) if query_step == 0 else sums[place + i, j]
            for s in range(num_steps):
                for d in range(SIDE):
                    number = _value(bits_BD[row + i, (step + s) * SIDE + d])
                    of_query = queries[group, query_step + s, j // 16, d // 2, j % 16, d % 2]
                    total += number * _value(of_query)
            sums[place + i, j] = total


@njit(nogil=True)
def _multiply_wrongly(bits_BD, row, step, queries, group, query_step, num_steps, sums, place):
    _multiply(bits_BD, row, step, queries, group, query_step, num_steps, sums, place)
    sums[place + SIDE - 1, SIDE - 1] += np.float32(1e6)


plain_count = counting_loop(Unit(_begin, _multiply, _end))
wrong_count = counting_loop(Unit(_begin, _multiply_wrongly, _end))
