"""The embedded data set, made once for all tests of a session that only read it."""

from functools import cache

from convsearch.data.mini import MiniData, generate_mini
from convsearch.data.mini.generate import DEFAULT_SEED
from convsearch.data.mini.hops import HopData, generate_hops


@cache
def mini() -> MiniData:
    """`data/mini`."""
    return generate_mini()


@cache
def mini_hops() -> HopData:
    """The multi-hop questions over it."""
    return generate_hops(DEFAULT_SEED)
