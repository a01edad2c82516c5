"""The reward of one rewrite, as verl's `compute_score` and as the parts the reward manager shares.

Every score comes with the same numbers beside it, so that they show up in verl's metrics:
`malformed` and `found` are 0 or 1; `rank` is the 1-based rank of the best gold passage, 0 where
none was found, -1 where the response was malformed and nothing was searched; `reciprocal_rank` is
1/rank or 0.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convsearch.errors import DataError
from convsearch.prompts.rewrite import parse_rewrite
from convsearch.rewards.rank_incentive import MALFORMED_REWARD
from convsearch.rewards.shapes import check_shape, shaped_reward
from convsearch_verl.settings import URL_VARIABLE, RetrieverSettings, retriever_settings

if TYPE_CHECKING:
    from convsearch.retrieval.client import RetrieverClient

Score = dict[str, float]
"""`score` (what is trained on) and the numbers beside it."""

NOT_FOUND_RANK = 0.0
NOT_SEARCHED_RANK = -1.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a rewrite should find: the query whose relevance the server knows, or passage ids."""

    qid: str | None
    golds: tuple[str, ...]


def search_target(ground_truth: object, extra_info: Mapping[str, object] | None) -> Target:
    """The target of one training row: `extra_info["query_id"]` where present, else the ids in
    `ground_truth`. Raises DataError where the row has neither."""
    qid = (extra_info or {}).get("query_id")
    if qid is not None and str(qid):
        return Target(qid=str(qid), golds=())
    if isinstance(ground_truth, str):
        golds: tuple[str, ...] = (ground_truth,) if ground_truth else ()
    elif hasattr(ground_truth, "__iter__"):
        golds = tuple(str(doc_id) for doc_id in ground_truth)  # pyright: ignore[reportGeneralTypeIssues]
    else:
        golds = ()
    if not golds:
        raise DataError(
            "a training row has neither extra_info.query_id nor gold ids in "
            'reward_model.ground_truth; rebuild the file with "convsearch data"'
        )
    return Target(qid=None, golds=golds)


def malformed_score() -> Score:
    """Score of a response that breaks the format. No search is spent on it."""
    return {
        "score": MALFORMED_REWARD,
        "rank": NOT_SEARCHED_RANK,
        "reciprocal_rank": 0.0,
        "found": 0.0,
        "malformed": 1.0,
    }


def rank_score(rank: int | None, reward: str = "piecewise") -> Score:
    """Score of a well-formed rewrite whose best gold passage came at this rank.

    reward: name of a shape in `convsearch.rewards.shapes`.
    """
    return {
        "score": shaped_reward(reward, rank),
        "rank": NOT_FOUND_RANK if rank is None else float(rank),
        "reciprocal_rank": 0.0 if rank is None else 1.0 / rank,
        "found": 0.0 if rank is None else 1.0,
        "malformed": 0.0,
    }


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | Sequence[str],
    extra_info: Mapping[str, object] | None = None,
    *,
    retriever_url: str | None = None,
    topk: int = 100,
    timeout_s: float = 120.0,
    attempts: int = 6,
    reward: str = "piecewise",
    **_ignored: object,
) -> Score:
    """Scores one response by itself, with one request to the server (none if it is malformed).

    retriever_url: address of the server; `RETRIEVER_URL` where not given. reward: its shape.
    Other keyword arguments, which verl may pass to every score function, have no effect.
    Raises ConfigError without an address or for an unknown shape, DataError for a row without a
    target, RetrieverError where the server does not answer: a broken server is never a reward.
    """
    check_shape(reward)
    parsed = parse_rewrite(solution_str)
    if parsed is None:
        return malformed_score()
    target = search_target(ground_truth, extra_info)
    url = retriever_url or os.environ.get(URL_VARIABLE)
    settings = retriever_settings(
        {"url": url, "topk": topk, "timeout_s": timeout_s, "attempts": attempts}
    )
    client = _client(settings)
    if target.qid is not None:
        ranks = client.ranks_by_qid([parsed.rewrite], [target.qid], settings.topk)
    else:
        ranks = client.ranks([parsed.rewrite], [target.golds], settings.topk)
    return rank_score(ranks[0], reward)


@functools.lru_cache(maxsize=4)
def _client(settings: RetrieverSettings) -> "RetrieverClient":
    from convsearch.retrieval.client import RetrieverClient

    return RetrieverClient(settings.url, timeout_s=settings.timeout_s, attempts=settings.attempts)
