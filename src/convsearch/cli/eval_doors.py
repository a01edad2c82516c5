"""`src/eval/get_metrics_using_{ance,bm25}.py`: the original's command lines for evaluation."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.cli import options as o
from convsearch.cli.doors import door_parser, run_door
from convsearch.cli.evaluate import show
from convsearch.errors import ConfigError, DataError
from convsearch.files import Qrels, read_jsonl, read_qrels, read_rewrites, read_turns
from convsearch.infer.runner import passport_path
from convsearch.passport import sha256_of
from convsearch.pipeline.evaluation import (
    Evaluation,
    Searched,
    baseline_queries,
    evaluate_queries,
    evaluate_rewrites,
    evaluate_searched,
    one_per_turn,
    write_evaluation,
)
from convsearch.pipeline.search import open_retriever
from convsearch.retrieval import Retriever

TEST_TYPES = ("rewrite", "raw", "history")


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What both evaluation doors come down to."""

    queries: Path
    """rewrites.jsonl, or turns.jsonl for the baselines."""
    test_type: str | None
    """One of TEST_TYPES; None is `rewrite` for a rewrites file and `raw` for a turns file."""
    turns: Path | None
    qrels: Path
    index: Path
    encoder: Path | None
    out_dir: Path
    run_name: str
    topk: int
    paper_compat: bool


def ance_main(argv: Sequence[str] | None = None) -> None:
    """`src/eval/get_metrics_using_ance.py`."""
    parser = door_parser("get_metrics_using_ance.py", "Evaluate queries on a dense index.")
    add = parser.add_argument
    add("--pretrained_encoder_path", type=Path, required=True, help="folder of the query encoder")
    add("--test_file_path", type=Path, required=True, help="rewrites.jsonl or turns.jsonl")
    add("--passage_embeddings_dir_path", type=Path, required=True, help="dense index folder")
    add("--qrel_output_dir", type=Path, required=True, help="folder for the results")
    add("--output_trec_file", default="run.trec", help="name of the ranking in that folder")
    add("--trec_gold_qrel_file_path", type=Path, required=True, help="qrels")
    add("--n_gpu", type=int, default=0, help="taken and not used: the search runs on the CPU")
    _add_shared(parser)
    run_door(lambda: _ance(parser.parse_args(argv)))


def bm25_main(argv: Sequence[str] | None = None) -> None:
    """`src/eval/get_metrics_using_bm25.py`."""
    parser = door_parser("get_metrics_using_bm25.py", "Evaluate queries on a BM25 index.")
    add = parser.add_argument
    add("--index_dir_path", type=Path, required=True, help="BM25 index folder")
    add("--query_file", type=Path, required=True, help="rewrites.jsonl or turns.jsonl")
    add("--gold_qrel_file_path", type=Path, required=True, help="qrels")
    add("--bm25_k1", type=float, help="must be the index's own")
    add("--bm25_b", type=float, help="must be the index's own")
    add("--retrieval_output_path", type=Path, required=True, help="folder for the results")
    add("--output_file_name", default="run.trec", help="name of the ranking in that folder")
    _add_shared(parser)
    run_door(lambda: _bm25(parser.parse_args(argv)))


def _add_shared(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--test_type", choices=TEST_TYPES, help="rewrite, or what of turns.jsonl to search")
    add("--turns_path", type=Path, help="turns of the rewrites, where their passport is gone")
    add("--topk", type=int, default=100, help="depth of the ranking")
    add("--paper_compat", action="store_true", help="average over answered queries only")


def _ance(args: argparse.Namespace) -> None:
    _evaluate(
        EvalRequest(
            queries=args.test_file_path,
            test_type=args.test_type,
            turns=args.turns_path,
            qrels=args.trec_gold_qrel_file_path,
            index=args.passage_embeddings_dir_path,
            encoder=args.pretrained_encoder_path,
            out_dir=args.qrel_output_dir,
            run_name=Path(args.output_trec_file).name,
            topk=args.topk,
            paper_compat=args.paper_compat,
        )
    )


def _bm25(args: argparse.Namespace) -> None:
    _check_bm25(args.index_dir_path, k1=args.bm25_k1, b=args.bm25_b)
    _evaluate(
        EvalRequest(
            queries=args.query_file,
            test_type=args.test_type,
            turns=args.turns_path,
            qrels=args.gold_qrel_file_path,
            index=args.index_dir_path,
            encoder=None,
            out_dir=args.retrieval_output_path,
            run_name=Path(args.output_file_name).name,
            topk=args.topk,
            paper_compat=args.paper_compat,
        )
    )


def _check_bm25(index: Path, **wanted: float | None) -> None:
    """The index holds finished weights, so k1 and b were chosen when it was made."""
    from retriever_server.manifest import read_manifest

    manifest = read_manifest(index)
    if manifest.get("engine") != "bm25":
        raise ConfigError(
            f"{index}: this is a {manifest.get('engine')} index; name a BM25 index made with "
            '"convsearch index"'
        )
    for name, value in wanted.items():
        if value is not None and value != manifest.get(name):
            raise ConfigError(
                f"{index}: was made with {name}={manifest.get(name)}, and --bm25_{name} asks for "
                f'{value}; make an index with these values: "convsearch index --k1 ... --b ..."'
            )


def _evaluate(request: EvalRequest) -> None:
    started = time.monotonic()
    qrels = read_qrels(request.qrels)
    is_rewrites = _holds_rewrites(request.queries)
    test_type = request.test_type or ("rewrite" if is_rewrites else "raw")
    if (test_type == "rewrite") != is_rewrites:
        needed = "a rewrites.jsonl file" if test_type == "rewrite" else "a turns.jsonl file"
        raise ConfigError(f"{request.queries}: --test_type {test_type} needs {needed}")
    with (
        open_retriever(index=request.index, encoder=request.encoder) as retriever,
        o.progress_bar("searching") as advance,
    ):
        if is_rewrites:
            evaluation = _evaluate_rewrites(request, retriever, qrels, advance)
        else:
            turns = read_turns(request.queries)
            evaluation = evaluate_queries(
                turns,
                baseline_queries(turns, "raw" if test_type == "raw" else "history"),
                retriever,
                qrels,
                request.topk,
                paper_compat=request.paper_compat,
                on_progress=advance,
            )
    write_evaluation(
        request.out_dir,
        evaluation,
        tag=test_type,
        settings={"test_type": test_type, "retriever": str(request.index)},
        inputs=[request.queries, request.qrels],
        seconds=round(time.monotonic() - started, 3),
        run_name=request.run_name,
    )
    show(evaluation, request.out_dir)


def _evaluate_rewrites(
    request: EvalRequest,
    retriever: Retriever,
    qrels: Qrels,
    advance: Callable[[int, int], None],
) -> Evaluation:
    """With the turns at hand, over all turns of the splits that the rewrites come from. Without,
    over all qrels, and a query without a well-formed rewrite finds nothing."""
    rewrites = read_rewrites(request.queries)
    by_qid = one_per_turn(rewrites)
    turns_path = request.turns or _turns_of_passport(request.queries)
    if turns_path is not None:
        turns = read_turns(turns_path)
        splits = {turn.split for turn in turns if turn.qid in by_qid}
        return evaluate_rewrites(
            [turn for turn in turns if turn.split in splits],
            rewrites,
            retriever,
            qrels,
            request.topk,
            paper_compat=request.paper_compat,
            on_progress=advance,
        )
    unknown = next((qid for qid in by_qid if qid not in qrels), None)
    if unknown is not None:
        raise DataError(f"{request.queries}: qid {unknown!r} has no line in {request.qrels}")
    searched = []
    for qid in qrels:
        rewrite = by_qid.get(qid)
        status = rewrite.status if rewrite else "missing"
        text = rewrite.text if rewrite else None
        searched.append(Searched(qid=qid, query=text or "", status=status))
    return evaluate_searched(
        searched,
        retriever,
        qrels,
        request.topk,
        paper_compat=request.paper_compat,
        on_progress=advance,
    )


def _turns_of_passport(rewrites: Path) -> Path | None:
    """The turns file that the rewrites were made from, if it is still there and unchanged."""
    try:
        passport = json.loads(passport_path(rewrites).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    inputs = passport.get("inputs", {}) if isinstance(passport, dict) else {}
    for name, digest in inputs.items():
        path = Path(name)
        if path.is_file() and sha256_of(path) == digest:
            return path
    return None


def _holds_rewrites(path: Path) -> bool:
    """Whether the first record is a rewrite; else it must be a turn."""
    for where, record in read_jsonl(path):
        if "response" in record:
            return True
        if "question" in record:
            return False
        raise DataError(
            f'{where}: neither a rewrite (field "response") nor a turn (field "question"); make '
            'the file with "convsearch infer" or "convsearch data"'
        )
    raise DataError(f"{path}: the file is empty")
