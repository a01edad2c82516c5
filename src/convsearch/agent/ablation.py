"""What several queries bring without any model: all-gold recall of n variants by rules.

For each question its first n variants are searched at depth k and fused. Three figures stand
beside each other, since more queries also read more: the share of questions with all gold passages
in the fused top, in everything that was read, and in as many passages of the question alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from convsearch.agent.fusion import fuse
from convsearch.agent.variants import rule_variants
from convsearch.errors import ConfigError, DataError
from convsearch.eval import bootstrap_interval
from convsearch.retrieval import Retriever
from convsearch.types import Question

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """One n and k over all questions."""

    n: int
    """Variants that were asked for; a question may have fewer."""
    k: int
    """Passages of each query."""
    questions: int
    mean_queries: float
    mean_documents: float
    """Distinct passages that were read."""
    all_gold_top: float
    """All gold passages within the fused top: the same documents for every n, where k is no less
    than the top."""
    all_gold_top_interval: Interval
    all_gold_read: float
    """All gold passages among everything that was read: the unequal comparison."""
    single_same_documents: float
    """All gold passages in as many passages of the question alone, question by question."""
    gain: float
    """all_gold_read less single_same_documents."""
    gain_interval: Interval


def ablate_variants(
    questions: Sequence[Question],
    golds: Mapping[str, Sequence[str]],
    retriever: Retriever,
    *,
    ns: Sequence[int] = (1, 2, 3, 5),
    ks: Sequence[int] = (3, 5, 10),
    top: int = 10,
    seed: int = 0,
    variants: Callable[[str, int], list[str]] = rule_variants,
) -> list[AblationRow]:
    """A row for each k and n, in this order. Intervals are 95 %, drawn by question.

    golds: of every question, at least one. Raises ConfigError for an n, k or top below 1,
    DataError for a question without gold, and what the retriever raises.
    """
    if not ns or not ks or min(*ns, *ks, top) < 1:
        raise ConfigError(f"n, k and top must be 1 or more, got n={ns}, k={ks}, top={top}")
    _check_golds(questions, golds)
    queries = [variants(q.question, max(ns)) for q in questions]
    distinct = list(dict.fromkeys(text for texts in queries for text in texts))
    deep = dict(zip(distinct, retriever.search(distinct, max(ks)), strict=True))
    alone = retriever.search([texts[0] for texts in queries], max(ns) * max(ks))
    rows = []
    for k in ks:
        for n in ns:
            in_top: list[float] = []
            in_read: list[float] = []
            in_single: list[float] = []
            documents = asked = 0
            for question, texts, single in zip(questions, queries, alone, strict=True):
                wanted = set(golds[question.qid])
                fused = [hit.doc_id for hit in fuse([deep[t][:k] for t in texts[:n]])]
                in_top.append(float(wanted <= set(fused[:top])))
                in_read.append(float(wanted <= set(fused)))
                in_single.append(float(wanted <= {hit.doc_id for hit in single[: len(fused)]}))
                documents += len(fused)
                asked += len(texts[:n])
            gains = [read - one for read, one in zip(in_read, in_single, strict=True)]
            rows.append(
                AblationRow(
                    n=n,
                    k=k,
                    questions=len(questions),
                    mean_queries=asked / len(questions),
                    mean_documents=documents / len(questions),
                    all_gold_top=_mean(in_top),
                    all_gold_top_interval=_interval(in_top, questions, seed),
                    all_gold_read=_mean(in_read),
                    single_same_documents=_mean(in_single),
                    gain=_mean(gains),
                    gain_interval=_interval(gains, questions, seed),
                )
            )
    return rows


@dataclass(frozen=True, kw_only=True)
class EqualRow:
    """n queries within one number of documents, over all questions."""

    documents: int
    """Distinct passages that are read, whatever n is: each query is searched this deep, and the
    fused list is cut there."""
    n: int
    questions: int
    all_gold: float
    all_gold_interval: Interval
    gain: float
    """all_gold less that of one query, question by question."""
    gain_interval: Interval


def equal_documents(
    questions: Sequence[Question],
    golds: Mapping[str, Sequence[str]],
    retriever: Retriever,
    *,
    ns: Sequence[int] = (1, 2, 3, 5),
    documents: Sequence[int] = (3, 5, 10, 20),
    seed: int = 0,
    variants: Callable[[str, int], list[str]] = rule_variants,
) -> list[EqualRow]:
    """A row for each number of documents and n, in this order. Raises as `ablate_variants`."""
    if not ns or not documents or min(*ns, *documents) < 1:
        raise ConfigError(f"n and documents must be 1 or more, got n={ns}, documents={documents}")
    _check_golds(questions, golds)
    queries = [variants(q.question, max(ns)) for q in questions]
    distinct = list(dict.fromkeys(text for texts in queries for text in texts))
    deep = dict(zip(distinct, retriever.search(distinct, max(documents)), strict=True))
    rows = []
    for limit in documents:
        found_by = {
            n: [
                float(
                    set(golds[q.qid])
                    <= {hit.doc_id for hit in fuse([deep[t][:limit] for t in texts[:n]])[:limit]}
                )
                for q, texts in zip(questions, queries, strict=True)
            ]
            for n in (1, *ns)
        }
        for n in ns:
            gains = [more - one for more, one in zip(found_by[n], found_by[1], strict=True)]
            rows.append(
                EqualRow(
                    documents=limit,
                    n=n,
                    questions=len(questions),
                    all_gold=_mean(found_by[n]),
                    all_gold_interval=_interval(found_by[n], questions, seed),
                    gain=_mean(gains),
                    gain_interval=_interval(gains, questions, seed),
                )
            )
    return rows


def equal_table(rows: Sequence[EqualRow]) -> str:
    """The rows as a table in Markdown."""
    lines = [
        "| documents | n | all gold within them (95 %) | gain over one query (95 %) |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = row.all_gold_interval
        worse, better = row.gain_interval
        lines.append(
            f"| {row.documents} | {row.n} | {row.all_gold:.3f} [{low:.3f}, {high:.3f}] | "
            f"{row.gain:+.3f} [{worse:+.3f}, {better:+.3f}] |"
        )
    return "\n".join(lines)


def ablation_table(rows: Sequence[AblationRow], top: int) -> str:
    """The rows as a table in Markdown."""
    lines = [
        f"| k | n | queries | documents | all gold in top {top} (95 %) | all gold in what was read "
        "| one query, as many documents | gain (95 %) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = row.all_gold_top_interval
        worse, better = row.gain_interval
        lines.append(
            f"| {row.k} | {row.n} | {row.mean_queries:.2f} | {row.mean_documents:.1f} | "
            f"{row.all_gold_top:.3f} [{low:.3f}, {high:.3f}] | {row.all_gold_read:.3f} | "
            f"{row.single_same_documents:.3f} | {row.gain:+.3f} [{worse:+.3f}, {better:+.3f}] |"
        )
    return "\n".join(lines)


def _check_golds(questions: Sequence[Question], golds: Mapping[str, Sequence[str]]) -> None:
    without = [q.qid for q in questions if not golds.get(q.qid)]
    if without or not questions:
        raise DataError(
            f"question {without[0]!r} has no gold passage; leave its data set out"
            if without
            else "there are no questions; check the split"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(values: Sequence[float], questions: Sequence[Question], seed: int) -> Interval:
    by_question = {q.qid: [value] for q, value in zip(questions, values, strict=True)}
    return bootstrap_interval(by_question, seed=seed)
