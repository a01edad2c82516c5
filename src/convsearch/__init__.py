"""ConvSearch: language models that learn to search from the rank of the right passage.

`from convsearch import Rewriter` is the way in from Python.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convsearch.infer.rewriter import Rewriter

__all__ = ["Rewriter", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Loaded when it is asked for: most of the library needs no model."""
    if name == "Rewriter":
        from convsearch.infer.rewriter import Rewriter

        return Rewriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
