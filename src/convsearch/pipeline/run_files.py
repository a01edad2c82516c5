"""Evaluation of a ranking that any program wrote as a TREC run, as trec_eval reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from convsearch.errors import ConfigError, DataError
from convsearch.eval import RELEVANCE_LEVEL, trec_eval_order
from convsearch.files import Qrels, Run, id_field, read_jsonl
from convsearch.pipeline.evaluation import Evaluation, GoldCheck, check_golds, score_run
from convsearch.pipeline.searched import QueryStatus, Searched
from convsearch.types import Turn

MAX_CORPUS_BYTES = 256 * 2**20
"""A larger corpus is not read through to look up ids: that takes longer than the rest."""
RUN_NOTE = (
    "mean over all queries of the qrels or the split; one that the run does not hold scores 0 "
    "(trec_eval -c)"
)
RUN_PAPER_COMPAT_NOTE = (
    "paper_compat: mean over the queries that the run holds only (trec_eval without -c), so this "
    "is not comparable with the default"
)


def evaluate_run(
    run: Run,
    qrels: Qrels,
    turns: Sequence[Turn] | None = None,
    *,
    switches: Mapping[str, bool | None] | None = None,
    topk: int | None = None,
    paper_compat: bool = False,
    relevance_level: int = RELEVANCE_LEVEL,
    seed: int = 0,
    corpus: Path | None = None,
) -> Evaluation:
    """Metrics of a run, its hits ordered as trec_eval orders them.

    The queries are those of `turns`, or of the qrels where no turns are given; one that is not in
    the run counts as missing. What the run holds besides is not looked at, as in trec_eval.
    topk: hits of each query that count; None takes all, and names MRR by the longest list.
    corpus: `corpus.jsonl` of the data set, in which relevant passages are looked up where it is
    small; None where there is none.
    Raises ConfigError for a topk below 1, DataError where run and qrels share no query or a turn
    has no line in the qrels.
    """
    if topk is not None and topk < 1:
        raise ConfigError(f"--topk must be 1 or more for a run file; got {topk}")
    if not run:
        raise DataError("the run file holds no line; check that its program ended well")
    if turns is None:
        searched = [Searched(qid=qid, query="", status=_status(run, qid)) for qid in qrels]
    else:
        searched = [
            Searched(
                qid=turn.qid,
                query="",
                status=_status(run, turn.qid),
                conv_id=turn.conv_id,
                turn=turn.turn,
                topic_switch=(switches or {}).get(turn.qid),
            )
            for turn in turns
        ]
    if not any(s.status == "ok" for s in searched):
        raise DataError(
            f"none of the {len(run)} queries of the run (the first is {next(iter(run))!r}) is "
            f"among the {len(searched)} to be measured (the first is {searched[0].qid!r}); use the "
            "qrels and the split that belong to the run"
        )
    ordered = {s.qid: trec_eval_order(run[s.qid])[:topk] for s in searched if s.qid in run}
    return score_run(
        searched,
        ordered,
        qrels,
        topk or max(len(hits) for hits in ordered.values()),
        paper_compat=paper_compat,
        relevance_level=relevance_level,
        note=RUN_PAPER_COMPAT_NOTE if paper_compat else RUN_NOTE,
        seed=seed,
        golds=_golds_in(corpus, [s.qid for s in searched], qrels),
    )


def _golds_in(corpus: Path | None, qids: Sequence[str], qrels: Qrels) -> GoldCheck | None:
    if corpus is None or not corpus.is_file() or corpus.stat().st_size > MAX_CORPUS_BYTES:
        return None

    def unknown(doc_ids: Sequence[str]) -> list[str]:
        known = {id_field(record, "doc_id", where) for where, record in read_jsonl(corpus)}
        return [doc_id for doc_id in doc_ids if doc_id not in known]

    return check_golds(qids, qrels, unknown)


def _status(run: Run, qid: str) -> QueryStatus:
    return "ok" if qid in run else "missing"
