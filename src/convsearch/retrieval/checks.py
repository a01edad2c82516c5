"""The checks every engine makes of its arguments, so that all refuse the same calls."""

from collections.abc import Sequence

from convsearch.errors import UnknownPassageError


def check_topk(topk: int) -> None:
    """Raises ValueError where topk is not a positive number."""
    if topk < 1:
        raise ValueError(f"topk must be 1 or more; got {topk}")


def check_rank_call(queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int) -> None:
    """Raises ValueError where golds do not match the queries one to one, or one has none."""
    check_topk(topk)
    if len(queries) != len(golds):
        raise ValueError(
            f"each query needs its gold passages: got {len(queries)} queries and {len(golds)} golds"
        )
    for position, ids in enumerate(golds):
        if isinstance(ids, str):
            raise ValueError(f"golds[{position}] must be a list of passage ids; got {ids!r}")
        if not ids:
            raise ValueError(f"golds[{position}] is empty; each query needs a gold passage")


def refuse_unknown(doc_ids: Sequence[str]) -> None:
    """Raises UnknownPassageError where there is an id. doc_ids: those that an index does not
    have."""
    if doc_ids:
        more = f" (nor are {len(doc_ids) - 1} others)" if len(doc_ids) > 1 else ""
        raise UnknownPassageError(
            f"passage {doc_ids[0]!r} is not in the index{more}; use gold ids of the corpus "
            "that was indexed",
            doc_ids,
        )
