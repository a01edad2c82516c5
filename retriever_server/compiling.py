"""Compiles loops of Python once for a machine, or once for a process where nothing can be kept."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from numba import njit

_log = logging.getLogger(__name__)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba's `njit` for loops that hold no lock; its machine code is kept on the disk.

    numba keeps it beside the source or in the user's cache. A package that is read-only, with a
    user whose HOME is absent or read-only, has neither: then each process compiles for itself, and
    a warning says so once. options: of `njit`.
    """

    def compile_it(function: Callable[..., Any]) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            _warn_once()
            return njit(nogil=True, **options)(function)

    return compile_it


@functools.cache
def _warn_once() -> None:
    _log.warning(
        "compiled code cannot be kept beside the program or in the user's cache, so that every "
        "start compiles it again; name a folder that can be written in NUMBA_CACHE_DIR"
    )
