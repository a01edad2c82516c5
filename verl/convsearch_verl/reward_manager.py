"""verl's reward manager `rewrite_r1`: a reward by rank, searched in micro-batches.

verl scores each rollout as it ends, so retrieval overlaps generation. The calls that come together
share one request. A malformed response is scored without any search; a server that fails raises,
and `replay` stops the run.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RawRewardFn, RewardManagerBase

from convsearch.errors import ConfigError
from convsearch.prompts.rewrite import parse_rewrite
from convsearch_verl import rewrite_score
from convsearch_verl.micro_batch import MicroBatcher
from convsearch_verl.rewrite_score import Target, malformed_score, rank_score, search_target
from convsearch_verl.settings import retriever_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Query = tuple[str, Target]


@register("rewrite_r1")
class RewriteRewardManager(RewardManagerBase):
    """One per reward worker of verl."""

    def __init__(
        self,
        config: DictConfig,
        tokenizer: "PreTrainedTokenizerBase",
        compute_score: RawRewardFn,
        reward_router_address: str | None = None,
        reward_model_tokenizer: object = None,
    ) -> None:
        """Raises ConfigError without a retrieval server, or with a foreign score function."""
        super().__init__(config, tokenizer, compute_score)  # pyright: ignore[reportArgumentType]
        self._tokenizer = tokenizer
        _refuse_foreign_score(config, compute_score)
        node = config.get("retriever")
        values = OmegaConf.to_container(node, resolve=True) if node is not None else None
        self._settings = retriever_settings(values)  # pyright: ignore[reportArgumentType]
        self._client = None
        self._batcher = MicroBatcher[Query, "int | None"](
            self._ranks, batch_size=self._settings.batch_size, max_wait_s=self._settings.max_wait_s
        )

    async def run_single(self, data: DataProto) -> dict[str, object]:
        """`reward_score` and `reward_extra_info` of one rollout: the numbers of `rewrite_score`,
        and as text `qid`, `query` (what was searched) and `status` (`ok` or `malformed`)."""
        item: Any = data[len(data) - 1]
        response_ids = item.batch["responses"]
        length = int(item.batch["attention_mask"][-response_ids.shape[-1] :].sum())
        text = str(self._tokenizer.decode(response_ids[:length], skip_special_tokens=True))
        parsed = parse_rewrite(text)
        target = search_target(
            item.non_tensor_batch["reward_model"]["ground_truth"],
            item.non_tensor_batch.get("extra_info"),
        )
        if parsed is None:
            score, query = malformed_score(), ""
        else:
            query = parsed.rewrite
            rank = await self._batcher.submit((query, target))
            score = rank_score(rank, self._settings.reward)
        told = {
            "qid": target.qid or "",
            "query": query,
            "status": "malformed" if parsed is None else "ok",
        }
        return {"reward_score": score["score"], "reward_extra_info": {**score, **told}}

    async def _ranks(self, queries: list[Query]) -> Sequence["int | None"]:
        """Ranks by position. Queries with and without a query id go in separate requests."""
        if self._client is None:
            from convsearch.retrieval.async_client import AsyncRetrieverClient

            self._client = AsyncRetrieverClient(
                self._settings.url,
                timeout_s=self._settings.timeout_s,
                attempts=self._settings.attempts,
            )
        ranks: dict[int, int | None] = {}
        for by_qid in (True, False):
            chosen = [i for i, (_, t) in enumerate(queries) if (t.qid is not None) is by_qid]
            if not chosen:
                continue
            texts = [queries[i][0] for i in chosen]
            targets = [queries[i][1] for i in chosen]
            topk = self._settings.topk
            if by_qid:
                qids = [t.qid for t in targets if t.qid is not None]
                found = await self._client.ranks_by_qid(texts, qids, topk)
            else:
                golds = [t.golds for t in targets]
                found = await self._client.ranks(texts, golds, topk)
            ranks.update(zip(chosen, found, strict=True))
        return [ranks[i] for i in range(len(queries))]


def _refuse_foreign_score(config: DictConfig, compute_score: RawRewardFn) -> None:
    """A score function that would be loaded and never called must not be accepted."""
    path = (config.reward.get("custom_reward_function") or {}).get("path")
    function = compute_score
    if isinstance(function, functools.partial) and function.args:
        function = function.args[0]
    if path and function is not rewrite_score.compute_score:
        raise ConfigError(
            f"custom_reward_function.path={path} would never be called: the reward manager "
            "rewrite_r1 scores by itself; leave the path out, or use reward_manager=naive"
        )
