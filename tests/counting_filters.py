"""The filters around `counting.counting_loop`, for tests of what they have in common."""

from collections.abc import Callable

import pytest
from plain_tiles import plain_count

from retriever_server.dense import dots, tiles
from retriever_server.dense.byte_filter import ByteFilter, byte_loop
from retriever_server.dense.filters import Filter
from retriever_server.dense.tile_filter import TileFilter, amx_count
from retriever_server.dense.vectors import Vectors

Make = Callable[[Vectors], Filter]
BYTE_KINDS = [
    pytest.param(
        kind,
        id=kind.name,
        marks=pytest.mark.skipif(kind not in dots.here(), reason=f"no {kind.name} here"),
    )
    for kind in (dots.VNNI512, dots.VNNI256, dots.AVX2)
]
"""Of a fixture: the instructions that multiply bytes."""
byte_loops = {kind: byte_loop(kind) for kind in dots.here()}
"""Each compiled once."""


def _bytes(kind: dots.Instructions) -> Make:
    return lambda vectors: ByteFilter(kind, byte_loops[kind], vectors)


FILTERS = [
    pytest.param(lambda vectors: TileFilter(plain_count), id="plain tiles"),
    pytest.param(
        lambda vectors: TileFilter(amx_count),
        id="AMX",
        marks=pytest.mark.skipif(not tiles.available(), reason="no AMX here"),
    ),
    *(pytest.param(_bytes(one.values[0]), id=one.id, marks=one.marks) for one in BYTE_KINDS),
]
"""Of a fixture: makes a filter for some vectors, which must be bfloat16."""
