"""What episodes are worth: answers, retrieval and cost, with intervals drawn by question.

Runs that read more know more. So every run is shown as it is, and within the same number of
documents and of tokens, where an answer counts only if its episode took no more than that.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.episodes.latency import percentiles
from convsearch.errors import ConfigError, DataError
from convsearch.eval import bootstrap_interval
from convsearch.eval.answers import answer_f1, exact_match
from convsearch.files import atomic_write, write_jsonl
from convsearch.passport import write_passport
from convsearch.texts import read_json
from convsearch.types import Episode, Question

DEPTHS = (5, 10, 20)
"""All-gold recall is shown within so many distinct documents, in the order of reading."""


@dataclass(frozen=True, kw_only=True)
class EpisodeScore:
    """One episode."""

    qid: str
    dataset: str
    type: str
    status: str
    em: float | None
    """None where the question has no accepted answers."""
    f1: float | None
    gold_rank: int | None
    """How many documents had to be read until all gold passages were; None if they never were, or
    none are known."""
    has_gold: bool
    searches: int
    queries: int
    documents: int
    model_tokens: int
    tool_tokens: int
    faults: int
    squeezer_failures: int
    seconds: float | None = None
    """Until it was over, among the others of its block; None where nobody measured."""


@dataclass(frozen=True, kw_only=True)
class RunScore:
    """One file of episodes. Means go over all its questions; a failed one counts as wrong."""

    name: str
    labels: Mapping[str, object]
    """Strategy, form, squeezer and engine, from the passport where there is one."""
    counts: Mapping[str, int]
    means: Mapping[str, float]
    em_interval: tuple[float, float] | None
    f1_interval: tuple[float, float] | None
    seconds_per_question: float | None
    """Of the run, in its batches; None where no passport says."""
    latency: Mapping[str, float]
    """Seconds of one question among those of its block: `p50`, `p90`, `p99`, and `batch_size`
    where the passport says; empty where nobody measured."""
    scores: tuple[EpisodeScore, ...]


def score_run(
    name: str,
    episodes: Sequence[Episode],
    questions: Sequence[Question],
    golds: Mapping[str, Sequence[str]],
    *,
    passport: Mapping[str, object] | None = None,
    seconds_of: Mapping[str, float] | None = None,
    seed: int = 0,
) -> RunScore:
    """Scores a run over exactly these questions. seconds_of: of each, by qid, where measured.

    Raises DataError where episodes and questions are not the same: a question that is left out
    would not count as wrong.
    """
    by_qid = {episode.qid: episode for episode in episodes}
    wanted = [question.qid for question in questions]
    missing, strange = set(wanted) - set(by_qid), set(by_qid) - set(wanted)
    if missing or strange:
        some = sorted(missing or strange)[0]
        where = "has no episode" if missing else "is not among the questions"
        raise DataError(
            f"{name}: qid {some!r} {where} ({len(missing)} missing, {len(strange)} unknown); "
            "evaluate the split and data set that the episodes were made from"
        )
    took = seconds_of or {}
    scores = tuple(
        _score(by_qid[q.qid], q, golds.get(q.qid, ()), took.get(q.qid)) for q in questions
    )
    settings = _mapping((passport or {}).get("settings"))
    seconds = (passport or {}).get("seconds")
    return RunScore(
        name=name,
        labels={
            "strategy": episodes[0].strategy,
            "format": episodes[0].tool_format,
            "squeezer": settings.get("squeezer"),
            "engine": _mapping(settings.get("engine")).get("model")
            or _mapping(settings.get("engine")).get("engine"),
            "search": settings.get("search"),
        },
        counts={
            "questions": len(scores),
            **{
                status: sum(s.status == status for s in scores)
                for status in ("answered", "no_answer", "failed")
            },
            "with_answers": sum(s.em is not None for s in scores),
            "with_gold": sum(s.has_gold for s in scores),
            "faults": sum(s.faults for s in scores),
            "squeezer_failures": sum(s.squeezer_failures for s in scores),
        },
        means=_means(scores),
        em_interval=_interval([(s.qid, s.em) for s in scores], seed),
        f1_interval=_interval([(s.qid, s.f1) for s in scores], seed),
        seconds_per_question=seconds / len(scores) if isinstance(seconds, int | float) else None,
        latency=_latency(scores, settings),
        scores=scores,
    )


def equal_budget(
    runs: Sequence[RunScore], max_documents: int | None = None, max_tokens: int | None = None
) -> dict[str, object]:
    """The runs within one number of documents, and within one number of tokens.

    max_documents, max_tokens: None takes the smallest of the runs' largest, leaving out runs that
    read nothing, such as `direct`: within 0 documents nobody could be compared. Tokens are those
    that the model wrote and those of the results that it read. An answer counts where its episode
    took at most so many; gold passages count where all of them were among the first so many
    documents.
    Raises ConfigError for a budget below 0.
    """
    if not runs:
        raise ConfigError("there is nothing to compare; name at least one file of episodes")
    documents = _limit("documents", max_documents, runs, lambda score: score.documents)
    tokens = _limit("tokens", max_tokens, runs, _tokens)
    return {
        "documents": documents,
        "tokens": tokens,
        "runs": {
            run.name: {
                "em": _mean([(s.em or 0.0) * (s.documents <= documents) for s in _answerable(run)]),
                "all_gold": _mean([_all_gold_within(s, documents) for s in _golden(run)]),
                "within": _mean([float(s.documents <= documents) for s in run.scores]),
                "em_tokens": _mean(
                    [(s.em or 0.0) * (_tokens(s) <= tokens) for s in _answerable(run)]
                ),
                "within_tokens": _mean([float(_tokens(s) <= tokens) for s in run.scores]),
            }
            for run in runs
        },
    }


def _limit(
    what: str, given: int | None, runs: Sequence[RunScore], cost: Callable[[EpisodeScore], int]
) -> int:
    if given is None:
        largest = [max(cost(score) for score in run.scores) for run in runs]
        return min(filter(None, largest), default=0)
    if given < 0:
        raise ConfigError(f"the budget of {what} must be 0 or more, got {given}")
    return given


def _tokens(score: EpisodeScore) -> int:
    return score.model_tokens + score.tool_tokens


def read_passport(path: Path) -> dict[str, object] | None:
    """The passport beside a run; None where there is none. Raises DataError for a broken one."""
    if not path.is_file():
        return None
    found = read_json(path, "remove this passport, or make the run again")
    return found if isinstance(found, dict) else None


def write_scores(
    out: Path,
    runs: Sequence[RunScore],
    budget: Mapping[str, object],
    *,
    settings: Mapping[str, object],
    inputs: Sequence[Path],
    seed: int,
    stage: str = "agent eval",
    made: Mapping[str, object] | None = None,
) -> None:
    """Writes `metrics.json`, `per_question.jsonl` and `run.json` into a folder. made: as for
    `write_passport`."""
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(
        out / "per_question.jsonl",
        ({"run": run.name, **asdict(score)} for run in runs for score in run.scores),
    )
    shown = [{k: v for k, v in asdict(run).items() if k != "scores"} for run in runs]
    with atomic_write(out / "metrics.json") as stream:
        json.dump({"runs": shown, "equal_budget": budget}, stream, indent=2, ensure_ascii=False)
        stream.write("\n")
    write_passport(
        out / "run.json", stage=stage, settings=settings, inputs=inputs, seed=seed, made=made
    )


def _score(
    episode: Episode, question: Question, golds: Sequence[str], seconds: float | None
) -> EpisodeScore:
    place = {doc_id: i for i, doc_id in enumerate(episode.doc_ids, 1)}
    ranks = [place.get(doc_id) for doc_id in golds]
    found = [rank for rank in ranks if rank is not None]
    return EpisodeScore(
        qid=question.qid,
        dataset=question.dataset,
        type=question.type,
        status=episode.status,
        em=exact_match(episode.answer, question.answers) if question.answers else None,
        f1=answer_f1(episode.answer, question.answers) if question.answers else None,
        gold_rank=max(found) if golds and len(found) == len(ranks) else None,
        has_gold=bool(golds),
        searches=sum(bool(span.queries) for span in episode.spans),
        queries=len(episode.queries),
        documents=len(episode.doc_ids),
        model_tokens=episode.num_model_tokens,
        tool_tokens=episode.num_tool_tokens,
        faults=sum(span.fault is not None for span in episode.spans),
        squeezer_failures=sum(span.squeezed is False for span in episode.spans),
        seconds=seconds,
    )


def _means(scores: Sequence[EpisodeScore]) -> dict[str, float]:
    answerable = [s for s in scores if s.em is not None]
    golden = [s for s in scores if s.has_gold]
    means = {}
    if answerable:
        means["em"] = _mean([s.em or 0.0 for s in answerable])
        means["f1"] = _mean([s.f1 or 0.0 for s in answerable])
    if golden:
        for depth in DEPTHS:
            means[f"all_gold_{depth}"] = _mean([_all_gold_within(s, depth) for s in golden])
        means["all_gold_read"] = _mean([float(s.gold_rank is not None) for s in golden])
    for name in ("searches", "queries", "documents", "model_tokens", "tool_tokens"):
        means[name] = _mean([float(getattr(s, name)) for s in scores])
    return means


def _latency(scores: Sequence[EpisodeScore], settings: Mapping[str, object]) -> dict[str, float]:
    found = percentiles([s.seconds for s in scores if s.seconds is not None])
    size = settings.get("batch_size")
    if found and isinstance(size, int):
        found["batch_size"] = size
    return found


def _all_gold_within(score: EpisodeScore, documents: int) -> float:
    return float(score.gold_rank is not None and score.gold_rank <= documents)


def _interval(values: Sequence[tuple[str, float | None]], seed: int) -> tuple[float, float] | None:
    known = {qid: [value] for qid, value in values if value is not None}
    return bootstrap_interval(known, seed=seed) if known else None


def _answerable(run: RunScore) -> list[EpisodeScore]:
    return [score for score in run.scores if score.em is not None]


def _golden(run: RunScore) -> list[EpisodeScore]:
    return [score for score in run.scores if score.has_gold]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
