"""Rewards of search agents: a pure function of an episode, its accepted answers and gold passages.

Scored is `Episode.answer`, which the state machine takes from the model's own text; what a search
brought back is never looked at. The weights are those of Search-R1 and ExpandSearch:

| | valid form | broken form |
| --- | --- | --- |
| right answer | 1.0 | 0.8 |
| wrong answer | 0.2 (+ retrieval bonus) | 0.1 |
| no answer | 0 | 0 |

A form is valid where every text of the model is one thought and one action and none was refused.
Their scripts pay the form even to an episode that never searched, which is a reward for nothing;
here that has to be asked for (`pay_form_without_search`). Nothing within a budget is punished.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Literal

from convsearch.errors import ConfigError
from convsearch.eval.answers import answer_f1, exact_match
from convsearch.types import Episode


@dataclass(frozen=True, kw_only=True)
class AgentRewardSettings:
    """What an episode earns."""

    metric: Literal["em", "f1"] = "em"
    """em: an answer is right or wrong. f1: F1 is how far between wrong and right it is."""
    right_valid: float = 1.0
    right_broken: float = 0.8
    wrong_valid: float = 0.2
    wrong_broken: float = 0.1
    pay_form_without_search: bool = False
    """The original's behaviour: a valid form pays although nothing was searched, and so does not
    to have split a question that was never searched (ParallelSearch)."""
    retrieval_bonus: float = 0.0
    """Times the share of gold passages that were read, where a valid form has a wrong answer."""
    decomposition_weight: float = 0.0
    """ParallelSearch (arXiv 2508.09303) takes 0.15."""
    search_count_weight: float = 0.0
    """ParallelSearch takes 0.35."""
    punish_searches: bool = False
    """ParallelSearch's behaviour: searches beyond its targets make the last term negative."""

    def __post_init__(self) -> None:
        if self.metric not in ("em", "f1"):
            raise ConfigError(f"unknown reward metric {self.metric!r}; choose em or f1")
        strange = [k for k, v in vars(self).items() if k != "metric" and not isfinite(v)]
        if strange:
            raise ConfigError(f"reward {strange[0]} must be a finite number")
        if self.wrong_valid + self.retrieval_bonus > self.right_valid or (
            self.wrong_broken > self.right_broken
        ):
            raise ConfigError(
                "a wrong answer would earn more than a right one: keep wrong_valid + "
                "retrieval_bonus up to right_valid, and wrong_broken up to right_broken"
            )


@dataclass(frozen=True, kw_only=True)
class AgentReward:
    """What an episode earned, and why."""

    reward: float
    em: float
    f1: float
    valid_form: bool
    searched: bool
    gold_recall: float
    """Share of the gold passages that were read; 0 where none are known."""
    decomposition: float
    """Unweighted term of ParallelSearch; 0 where nothing was searched, unless that pays."""
    search_count: float
    """Unweighted term of ParallelSearch."""

    def as_metrics(self) -> dict[str, float]:
        """All numbers by name, as trainers log them."""
        return {name: float(value) for name, value in asdict(self).items()}


def is_valid_form(episode: Episode) -> bool:
    """Whether it was answered and every text of the model was one thought and one action."""
    own = [span for span in episode.spans if span.kind == "model"]
    return episode.status == "answered" and all(span.well_formed for span in own)


def search_agent_reward(
    episode: Episode,
    answers: Sequence[str],
    settings: AgentRewardSettings,
    *,
    gold_ids: Sequence[str] = (),
    parallel: bool | None = None,
) -> AgentReward:
    """The reward of one episode.

    gold_ids: passages that the answer needs, where they are known. parallel: whether the question
    splits into parts that do not wait for each other (a comparison); None leaves out the terms of
    ParallelSearch. Raises ValueError for a failed episode: a broken engine is never a reward.
    """
    if episode.status == "failed":
        raise ValueError(f"episode {episode.qid!r} failed ({episode.error}); it has no reward")
    em, f1 = exact_match(episode.answer, answers), answer_f1(episode.answer, answers)
    valid, searched = is_valid_form(episode), bool(episode.queries)
    read = set(episode.doc_ids) & set(gold_ids)
    recall = len(read) / len(set(gold_ids)) if gold_ids else 0.0
    right = em if settings.metric == "em" else f1
    base = 0.0
    if episode.answer is not None:
        top, low = settings.right_broken, settings.wrong_broken
        if valid:
            top, low = settings.right_valid, settings.wrong_valid
            low += settings.retrieval_bonus * recall
        if not (searched or settings.pay_form_without_search):
            low = 0.0
        base = right * top + (1 - right) * low
    decomposition = count = 0.0
    if parallel is not None:
        if searched or settings.pay_form_without_search:
            decomposition = decomposition_term(episode, parallel)
        count = search_count_term(episode, parallel, punish=settings.punish_searches)
    return AgentReward(
        reward=base
        + settings.decomposition_weight * decomposition
        + settings.search_count_weight * count,
        em=em,
        f1=f1,
        valid_form=valid,
        searched=searched,
        gold_recall=recall,
        decomposition=decomposition,
        search_count=count,
    )


def decomposition_term(episode: Episode, parallel: bool) -> float:
    """ParallelSearch's term, as in its code: 3 for a parallel question that was split into several
    queries of one call, 1 for any other question that was not split, else 0."""
    split = any(len(span.queries) > 1 for span in episode.spans if span.kind == "tool")
    return 3.0 * split if parallel else float(not split)


def search_count_term(episode: Episode, parallel: bool, *, punish: bool = False) -> float:
    """ParallelSearch's term: 1 for the number of calls that it aims at, less 1 for each away.

    Aimed at are exactly one call for a parallel question and two or more for any other: its code
    counts the two mentions of the tag in its prompt too, hence its 3 and 4. punish: let the term
    fall below 0, as there.
    """
    calls = sum(bool(span.queries) for span in episode.spans)
    away = abs(calls - 1) if parallel else max(0, 2 - calls)
    return float(1 - away if punish else max(0, 1 - away))
