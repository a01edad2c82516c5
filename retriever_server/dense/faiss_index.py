"""FAISS and the index objects of its factory, from outside in: transforms, wrappers, core."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from convsearch.errors import ConfigError, DependencyError, install_command

CODE_ROWS = 1_024
"""Vectors whose product codes FAISS makes at once. By default it takes 262,144, with a table of 256
floats for each code of each where codes are of 16 dimensions or more: OPQ16 of 256 dimensions
trained in 1.5 GB instead of 0.4. The codes are the same, and made sooner: the table stays in the
cache."""


def import_faiss() -> ModuleType:
    """FAISS. Raises DependencyError."""
    try:
        import faiss
    except ImportError:
        raise DependencyError(
            f"faiss is not installed; run {install_command('retriever')}"
        ) from None
    return faiss


def new_index(dim: int, factory: str) -> Any:
    """An empty FAISS index. Raises ConfigError where FAISS cannot read the factory string."""
    faiss = import_faiss()
    faiss.cvar.product_quantizer_compute_codes_bs = CODE_ROWS  # for the whole process
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ConfigError(f"FAISS cannot build {factory!r}: {reason(error)}") from None


def transforms(index: Any) -> Iterator[Any]:
    """What vectors go through before the index proper, such as OPQ's rotation."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if hasattr(index, "chain"):
        for at in range(index.chain.size()):
            yield faiss.downcast_VectorTransform(index.chain.at(at))


def core(index: Any) -> Any:
    """The index proper: behind transforms, and without what only adds to it, as RFlat does."""
    index = import_faiss().downcast_index(index)
    for name in ("index", "base_index"):
        if hasattr(index, name):
            return core(getattr(index, name))
    return index


def coder(index: Any) -> Any:
    """What makes the codes that are kept: the core, or what a graph keeps its vectors in."""
    index = core(index)
    return import_faiss().downcast_index(index.storage) if hasattr(index, "storage") else index


def reason(error: RuntimeError) -> str:
    """FAISS' own words without its C++ place."""
    return str(error).splitlines()[0].split("Error: ")[-1]
