"""Exact top lists with the help of a flat FAISS index on GPUs, whose rounding decides nothing.

The index holds x - m in float16, m the mean of the passages: embeddings lie around their mean, so
rounding takes a share of the short distances from it and not of the long vectors. It proposes topk
passages and some more, which are scored again by the definition (`exact_rank`). With p the product
that FAISS gives and R >= |x - m| for all passages,

    |p - <q, x - m>| <= E = |q| R (2 u + u^2 + gamma_D) + F,

where u = 2^-11 is the unit roundoff of float16, to which queries and passages are rounded, gamma_D
that of the accumulator (see `exact_rank`), and F stands for numbers below float16's normal range. A
passage that was not proposed has a p of at most the last one proposed. So a list is complete where
the last p plus E stays below the score of its topk-th passage. Where it does not, more are fetched,
and in the end `lists` makes the list without the index. E is declared, not proven of FAISS: each
proposed product is compared with it, and an index that breaks it once is not asked again.

None of this has been run on a GPU. The tests put FAISS' indexes for CPUs in its place, also one
that stores float16.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retriever_server.dense.exact_rank import split
from retriever_server.dense.faiss_index import import_faiss
from retriever_server.dense.filters import TENSOR_CORE_UNIT, as_float32, gamma
from retriever_server.dense.formats import Floats
from retriever_server.dense.lists import Ints, TopList, top_lists
from retriever_server.dense.units import GPU_SHARE
from retriever_server.dense.vectors import Block, Vectors

ADD_ROWS = 16_384
_SPARE_HITS = 64
"""Fetched beyond topk at first; four times as many where that does not suffice."""
_MOST_HITS = 2048
"""What the GPU indexes of FAISS list at most."""
_HALF_UNIT = 2.0**-11
_HALF_TINY = 2.0**-24
"""Twice the largest error of a number below the normal range of float16."""
_LARGEST_HALF = 65504.0

_log = logging.getLogger(__name__)
Doubles = npt.NDArray[np.float64]


class FlatIndex(Protocol):
    """What is used of a FAISS index that compares a query with all of its vectors."""

    def search(self, queries_QD: Floats, k: int, /) -> tuple[Floats, Ints]:
        """(products, ids), each (Q, k), the largest product first; ids in the order of adding."""
        ...


MakeIndex = Callable[[Sequence[Block], Callable[[Block], Floats]], FlatIndex]
"""From blocks, and what gives the values of a block: an index over all of them, in their order."""


class FlatLists:
    """Top lists over `Vectors.blocks`, equal to those of `lists.top_lists`. Safe for threads: one
    at a time asks the index, which FAISS demands on GPUs."""

    def __init__(self, vectors: Vectors, make_index: MakeIndex) -> None:
        self._vectors = vectors
        self._mean_D: Doubles = vectors.mean_D.astype(np.float64)
        blocks = list(vectors.blocks(ADD_ROWS))
        self._farthest = max((block.farthest for block in blocks), default=0.0)
        self._index: FlatIndex | None = make_index(blocks, self._values)
        self._lock = threading.Lock()
        self.num_unsure = 0
        """Lists so far that were made without the index."""

    def top_lists(
        self, id_order_N: npt.NDArray[np.integer], queries_QD: Floats, topk: int
    ) -> list[TopList]:
        """See `lists.top_lists`."""
        lists: dict[int, TopList] = {}
        unsure = np.arange(len(queries_QD))
        most = min(_MOST_HITS, self._vectors.rows.size)
        fetched = min(topk + _SPARE_HITS, most)
        while len(unsure) and min(topk, self._vectors.rows.size) <= fetched:
            found = self._sure(id_order_N, queries_QD[unsure], topk, fetched)
            lists |= {int(unsure[place]): one for place, one in found.items()}
            unsure = np.asarray([query for query in unsure if query not in lists], dtype=np.intp)
            if self._index is None or fetched == most:
                break
            fetched = min(most, 4 * fetched)
        if len(unsure):
            self.num_unsure += len(unsure)
            rest = top_lists(self._vectors, id_order_N, queries_QD[unsure], topk)
            lists |= dict(zip(unsure.tolist(), rest, strict=True))
        return [lists[query] for query in range(len(queries_QD))]

    def _values(self, block: Block) -> Floats:
        return (as_float32(block) - self._mean_D).astype(np.float32)

    def _sure(
        self, id_order_N: npt.NDArray[np.integer], queries_QD: Floats, topk: int, fetched: int
    ) -> dict[int, TopList]:
        """The lists that are complete for certain, by the place of the query."""
        doubles_QD = queries_QD.astype(np.float64)
        length_Q = np.linalg.norm(doubles_QD, axis=1)
        # a power of two, which costs no rounding: float16 holds queries of any length then
        scale_Q = np.exp2(np.floor(np.log2(np.maximum(length_Q, 1e-30))))
        scaled_QD = (doubles_QD / scale_Q[:, None]).astype(np.float32)
        with self._lock:
            if self._index is None:
                return {}
            products_QK, ids_QK = self._index.search(scaled_QD, fetched)
        products_QK = products_QK.astype(np.float64) * scale_Q[:, None]
        centre_Q = doubles_QD @ self._mean_D
        error_Q = self._errors(length_Q, scale_Q)
        lists: dict[int, TopList] = {}
        for query, ids_K in enumerate(ids_QK):
            if ids_K.min() < 0 or len(np.unique(ids_K)) < fetched:
                return self._give_up("it lists a passage twice, or too few")
            near = ids_K.astype(np.int64) + self._vectors.rows.first
            scores = self._vectors.scores(queries_QD[query], near)
            wrong_K = np.abs(products_QK[query] + centre_Q[query] - scores)
            if not (wrong_K <= error_Q[query]).all():
                return self._give_up("a product is further from the score than float16 explains")
            order = np.lexsort((np.asarray(id_order_N[near]), -scores))[:topk]
            others = products_QK[query].min() + centre_Q[query] + error_Q[query]
            if fetched == self._vectors.rows.size or others < scores[order[-1]]:
                lists[query] = near[order], scores[order]
        return lists

    def _errors(self, length_Q: Doubles, scale_Q: Doubles) -> Doubles:
        """E of the module's text, and the roundings in single and double precision on the way."""
        dim = self._vectors.dim
        rounded = 2 * _HALF_UNIT + _HALF_UNIT**2 + 2.0**-22
        relative = rounded + gamma(dim + 1, TENSOR_CORE_UNIT)
        tiny_Q = scale_Q * _HALF_TINY * np.sqrt(dim) * (2 + self._farthest + np.sqrt(dim))
        longest = self._vectors.longest + float(np.linalg.norm(self._mean_D))
        doubles_Q = 8 * (dim + 1) * 2.0**-52 * length_Q * longest
        return length_Q * self._farthest * relative * (1 + 1e-3) + tiny_Q + doubles_Q

    def _give_up(self, reason: str) -> dict[int, TopList]:
        _log.warning("the flat index of FAISS is not used any more: %s", reason)
        self._index = None
        return {}


def flat_lists(vectors: Vectors) -> FlatLists | None:
    """Lists with the help of all GPUs; None where FAISS sees none, or has no room on them."""
    faiss = import_faiss()
    num_gpus = faiss.get_num_gpus()
    if num_gpus == 0:
        return None
    try:
        import torch
    except ImportError:
        return None
    blocks = list(vectors.blocks(ADD_ROWS))
    free = min(torch.cuda.mem_get_info(gpu)[0] for gpu in range(num_gpus))
    largest = max(sum(len(block.raw_BD) for block in part) for part in split(blocks, num_gpus))
    fits = 2 * vectors.dim * largest <= GPU_SHARE * free
    if not fits or max(block.farthest for block in blocks) > _LARGEST_HALF:
        return None
    return FlatLists(vectors, GpuShards)


class GpuShards:
    """A `FlatIndex` on all GPUs, each with a run of the blocks, in float16."""

    def __init__(self, blocks: Sequence[Block], values: Callable[[Block], Floats]) -> None:
        faiss = import_faiss()
        dim = blocks[0].raw_BD.shape[1]
        self._shards: Any = faiss.IndexShards(dim, True, True)  # side by side; ids follow on
        self._kept: list[object] = []  # FAISS does not own what Python made
        for gpu, part in enumerate(split(blocks, faiss.get_num_gpus())):
            config = faiss.GpuIndexFlatConfig()
            config.useFloat16, config.device = True, gpu
            resources = faiss.StandardGpuResources()
            index = faiss.GpuIndexFlatIP(resources, dim, config)
            for block in part:
                index.add(values(block))
            self._shards.add_shard(index)
            self._kept += [resources, index]

    def search(self, queries_QD: Floats, k: int, /) -> tuple[Floats, Ints]:
        """See `FlatIndex`."""
        return self._shards.search(queries_QD, k)
