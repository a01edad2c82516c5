"""Approximate search by FAISS: IVF, HNSW, PQ and what else `index_factory` can spell.

Files in `ann/` of an index folder: `index.faiss`, and `ann.json` with the settings, the hash of the
vectors it was made of, and the rank error that was measured. Without a measured error an index is
not opened: passages it misses become wrong rewards, and a user must know how many.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convsearch.errors import ConfigError, DataError, EngineError
from convsearch.files import atomic_write
from convsearch.made import refuse_other, tell_kept
from convsearch.passport import sha256_of
from retriever_server.dense.faiss_index import import_faiss, reason
from retriever_server.dense.formats import Floats
from retriever_server.dense.vectors import Vectors

ANN, INDEX = "ann", "index.faiss"
_CARD = "ann.json"
_REMEDY = 'build it again with "convsearch ann"'


@dataclass(frozen=True, kw_only=True)
class RankError:
    """How far ranks of one setting are from the exact ones, over a sample of queries."""

    search: str
    """FAISS search parameters, such as `nprobe=32`."""
    num_queries: int
    topk: int
    equal: float
    """Share of queries with the exact rank, those beyond topk in both included."""
    missed: float
    """Share of golds within the exact topk that the approximate list lacks."""
    mean_shift: float
    """Mean absolute difference of ranks, where both found the gold."""
    queries_per_s: float
    """Search alone, without encoding."""
    exact_queries_per_s: float

    def __str__(self) -> str:
        return (
            f"{self.search or 'default'}: {self.equal:.1%} of {self.num_queries} ranks equal, "
            f"{self.missed:.1%} of golds within rank {self.topk} missed, mean shift "
            f"{self.mean_shift:.2f}; {self.queries_per_s:.0f} queries/s, exact "
            f"{self.exact_queries_per_s:.0f}"
        )


class AnnIndex:
    """A FAISS index over the stored vectors, positions as its ids. Safe for threads."""

    def __init__(self, index: object, search: str) -> None:
        """search: see `RankError`. Raises ConfigError where FAISS knows no such parameter."""
        self._index, self.search_parameters = index, search
        if search:
            faiss = import_faiss()
            try:
                faiss.ParameterSpace().set_index_parameters(index, search)
            except RuntimeError as error:
                raise ConfigError(
                    f"search parameters {search!r} do not fit this FAISS index: {reason(error)}"
                ) from None

    @classmethod
    def read(cls, path: Path, search: str) -> "AnnIndex":
        """From the file of a FAISS index, with no other parameters than these and its own."""
        return cls(import_faiss().read_index(str(path)), search)

    def lists(
        self, vectors: Vectors, id_order_N: npt.NDArray[np.integer], queries_QD: Floats, depth: int
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
        """For each query what FAISS finds, in the order of exact scores, with these scores. Raises
        EngineError where FAISS cannot search with its parameters."""
        try:
            _, found_QK = self._index.search(queries_QD, min(depth, len(vectors)))  # type: ignore[attr-defined]
        except RuntimeError as error:  # of a setting that FAISS took, such as nprobe=-1
            raise EngineError(
                f"FAISS cannot search with {self.search_parameters!r}: {reason(error)}"
            ) from None
        lists = []
        for query_D, found in zip(queries_QD, found_QK, strict=True):
            near = found[found >= 0].astype(np.int64)
            scores = vectors.scores(query_D, near)
            order = np.lexsort((np.asarray(id_order_N[near]), -scores))
            lists.append((near[order], scores[order]))
        return lists

    @staticmethod
    def write_card(folder: Path, vectors: Vectors, factory: str, error: RankError) -> None:
        """Beside the file that `ann_build` has written. error: with the search parameters that the
        index will be opened with."""
        card = {
            "factory": factory,
            "search": error.search,
            "vectors_sha256": sha256_of(vectors.folder / "vectors.json"),
            "index_sha256": sha256_of(folder / INDEX),
            "rank_error": asdict(error),
        }
        with atomic_write(folder / _CARD) as out:
            json.dump(card, out, indent=1)
            out.write("\n")

    @staticmethod
    def error_of(folder: Path, vectors: Vectors, factory: str, search: str) -> RankError | None:
        """What was measured of the index that lies there; None where there is none.

        Raises ConfigError where it is of another factory, search setting or vectors.
        """
        path = folder / _CARD
        if not path.is_file():
            return None
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            found = {name: card[name] for name in ("factory", "search", "vectors_sha256")}
            error = RankError(**card["rank_error"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}: damaged; {_REMEDY}") from None
        now = {"factory": factory, "search": search}
        now["vectors_sha256"] = sha256_of(vectors.folder / "vectors.json")
        refuse_other(folder, found, now)
        tell_kept(folder)
        return error

    @classmethod
    def load(cls, folder: Path, vectors_dir: Path) -> tuple["AnnIndex", RankError, str]:
        """The index, its measured error, and a fingerprint of both.

        Raises DataError where a file is damaged or is of other vectors.
        """
        try:
            text = (folder / _CARD).read_text(encoding="utf-8")
            card = json.loads(text)
            error = RankError(**card["rank_error"])
            wanted, made_of, search = card["index_sha256"], card["vectors_sha256"], card["search"]
            if not isinstance(search, str):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{folder / _CARD}: missing or damaged; {_REMEDY}") from None
        if made_of != sha256_of(vectors_dir / "vectors.json"):
            raise DataError(f"{folder}: made of other vectors than {vectors_dir}; {_REMEDY}")
        path = folder / INDEX
        if not path.is_file() or sha256_of(path) != wanted:
            raise DataError(f"{path}: missing, or not what was written; {_REMEDY}")
        return cls.read(path, search), error, sha256_of(folder / _CARD)


def rank_error(
    exact: Sequence[int | None], approximate: Sequence[int | None], *, search: str, topk: int,
    queries_per_s: float, exact_queries_per_s: float,
) -> RankError:  # fmt: skip
    """Compares two lists of ranks of the same queries."""
    found = [(e, a) for e, a in zip(exact, approximate, strict=True) if e is not None]
    shifts = [abs(e - a) for e, a in found if a is not None]
    return RankError(
        search=search,
        num_queries=len(exact),
        topk=topk,
        equal=sum(e == a for e, a in zip(exact, approximate, strict=True)) / len(exact),
        missed=sum(a is None for _, a in found) / max(1, len(found)),
        mean_shift=sum(shifts) / max(1, len(shifts)),
        queries_per_s=round(queries_per_s, 1),
        exact_queries_per_s=round(exact_queries_per_s, 1),
    )
