"""`src/eval/get_metrics_using_{ance,bm25}.py`: the original's command lines for evaluation."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.cli import options as o
from convsearch.cli.doors import door_parser, run_door
from convsearch.cli.evaluate import show
from convsearch.data.dataset import topic_switches_beside
from convsearch.errors import ConfigError, DataError
from convsearch.eval import RELEVANCE_LEVEL
from convsearch.files import Qrels, read_jsonl, read_qrels, read_turns
from convsearch.infer.journal import passport_path
from convsearch.made import Output
from convsearch.passport import sha256_of
from convsearch.pipeline.baselines import baseline_queries, check_baseline, is_concatenation
from convsearch.pipeline.evaluation import evaluate_searched
from convsearch.pipeline.evaluation_files import check_out, write_evaluation
from convsearch.pipeline.evaluation_output import claim, evaluation_output
from convsearch.pipeline.measured_rewrites import rewrites_to_measure
from convsearch.pipeline.search import (
    SearchOptions,
    open_retriever,
    search_settings,
    with_query_tokens,
)
from convsearch.pipeline.searched import (
    QueryLimits,
    Searched,
    cut_queries,
    one_per_turn,
    searched_queries,
    searched_rewrites,
)
from convsearch.texts import read_json_object

NO_TURNS_NOTE = (
    "mean over all queries of the qrels, of whatever split; their questions are not at hand, so "
    "one without a well-formed rewrite finds nothing (--turns_path names the turns)"
)


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What both evaluation doors come down to."""

    queries: Path
    """rewrites.jsonl, or turns.jsonl for the baselines."""
    test_type: str | None
    """`rewrite` or the name of a baseline; None is `rewrite` for a rewrites file and `raw` for a
    turns file."""
    turns: Path | None
    qrels: Path
    search: SearchOptions
    out_dir: Path
    run_name: str
    topk: int
    limits: QueryLimits
    paper_compat: bool
    relevance_level: int


def ance_main(argv: Sequence[str] | None = None) -> None:
    """`src/eval/get_metrics_using_ance.py`."""
    parser = door_parser("get_metrics_using_ance.py", "Evaluate queries on a dense index.")
    add = parser.add_argument
    add("--pretrained_encoder_path", type=Path, help="folder of the query encoder")
    add("--test_file_path", type=Path, required=True, help="rewrites.jsonl or turns.jsonl")
    add("--passage_embeddings_dir_path", type=Path, help="dense index folder")
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
    add("--index_dir_path", type=Path, help="BM25 or Lucene index folder")
    add("--query_file", type=Path, required=True, help="rewrites.jsonl or turns.jsonl")
    add("--gold_qrel_file_path", type=Path, required=True, help="qrels")
    add("--bm25_k1", type=float, help="of a BM25 index its own; a Lucene index takes any")
    add("--bm25_b", type=float, help="as --bm25_k1")
    add("--encoder_path", type=Path, help="query encoder, where --fuse_with is dense")
    add("--retrieval_output_path", type=Path, required=True, help="folder for the results")
    add("--output_file_name", default="run.trec", help="name of the ranking in that folder")
    _add_shared(parser)
    run_door(lambda: _bm25(parser.parse_args(argv)))


def _add_shared(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--test_type", help="rewrite; of turns.jsonl raw, history, or history:3 (3 exchanges)")
    add("--turns_path", type=Path, help="turns of the rewrites, where their passport is gone")
    add("--fuse_with", type=Path, help="second index of the same corpus, fused by ranks")
    add("--retriever_url", help="address of a retrieval server, instead of an index")
    add("--topk", type=int, default=100, help="depth of the ranking")
    add("--max_query_words", type=int, help="search the first so many words of each query")
    add("--max_query_tokens", type=int, help="dense: tokens read of a query; its own, 64, if none")
    add(
        "--max_concat_tokens",
        type=int,
        default=QueryLimits.concat_tokens,
        help="dense: tokens read of a concatenation",
    )
    add("--paper_compat", action="store_true", help="average over answered queries only")
    add(
        "--rel_threshold",
        type=int,
        default=RELEVANCE_LEVEL,
        help="lowest grade that counts as relevant for MRR and recall; NDCG takes all",
    )


def _limits(args: argparse.Namespace) -> QueryLimits:
    return QueryLimits(
        words=args.max_query_words,
        tokens=args.max_query_tokens,
        concat_tokens=args.max_concat_tokens,
    )


def _ance(args: argparse.Namespace) -> None:
    if args.passage_embeddings_dir_path is not None:
        _check_dense(args.passage_embeddings_dir_path)
    _evaluate(
        EvalRequest(
            queries=args.test_file_path,
            test_type=args.test_type,
            turns=args.turns_path,
            qrels=args.trec_gold_qrel_file_path,
            search=SearchOptions(
                index=args.passage_embeddings_dir_path,
                url=args.retriever_url,
                encoder=args.pretrained_encoder_path,
                fuse_with=args.fuse_with,
            ),
            out_dir=args.qrel_output_dir,
            run_name=Path(args.output_trec_file).name,
            topk=args.topk,
            limits=_limits(args),
            paper_compat=args.paper_compat,
            relevance_level=args.rel_threshold,
        )
    )


def _bm25(args: argparse.Namespace) -> None:
    index, k1, b = args.index_dir_path, args.bm25_k1, args.bm25_b
    if index is not None and not _is_lucene(index):
        _check_bm25(index, k1=k1, b=b)
        k1 = b = None
    _evaluate(
        EvalRequest(
            queries=args.query_file,
            test_type=args.test_type,
            turns=args.turns_path,
            qrels=args.gold_qrel_file_path,
            search=SearchOptions(
                index=index,
                url=args.retriever_url,
                encoder=args.encoder_path,
                fuse_with=args.fuse_with,
                k1=k1,
                b=b,
            ),
            out_dir=args.retrieval_output_path,
            run_name=Path(args.output_file_name).name,
            topk=args.topk,
            limits=_limits(args),
            paper_compat=args.paper_compat,
            relevance_level=args.rel_threshold,
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


def _check_dense(index: Path) -> None:
    """Numbers of BM25 must not pass for those of a dense engine."""
    from retriever_server.manifest import engine_of

    engine = engine_of(index)
    if engine in ("bm25", "lucene"):
        raise ConfigError(
            f"{index}: this is a {engine} index; name a dense one, or use get_metrics_using_bm25.py"
        )


def _is_lucene(index: Path) -> bool:
    from retriever_server.manifest import engine_of

    return engine_of(index) == "lucene"


def _evaluate(request: EvalRequest) -> None:
    started = time.monotonic()
    check_out(request.out_dir)
    qrels = read_qrels(request.qrels)
    is_rewrites = _holds_rewrites(request.queries)
    test_type = request.test_type or ("rewrite" if is_rewrites else "raw")
    if test_type != "rewrite":
        check_baseline(test_type)
    if (test_type == "rewrite") != is_rewrites:
        needed = "a rewrites.jsonl file" if test_type == "rewrite" else "a turns.jsonl file"
        raise ConfigError(f"{request.queries}: --test_type {test_type} needs {needed}")
    tokens, note = request.limits.tokens, None
    if is_rewrites:
        searched, has_turns = _of_rewrites(request, qrels)
        if not has_turns and not request.paper_compat:
            note = NO_TURNS_NOTE
            if any(s.status != "ok" for s in searched):
                print(f"warning: {note}", file=sys.stderr)
    else:
        turns = read_turns(request.queries)
        queries = baseline_queries(turns, test_type)
        if is_concatenation(test_type):
            tokens = request.limits.concat_tokens
        searched = searched_queries(turns, queries, topic_switches_beside(request.queries))
    with (
        open_retriever(**vars(request.search)) as retriever,
        o.progress_bar("searching") as advance,
    ):
        engine = search_settings(request.search, retriever)
        output = _output(request, test_type, engine)
        claim(output, fresh=True)
        evaluation = evaluate_searched(
            cut_queries(searched, request.limits.words),
            with_query_tokens(retriever, tokens),
            qrels,
            request.topk,
            paper_compat=request.paper_compat,
            relevance_level=request.relevance_level,
            note=note,
            on_progress=advance,
        )
    output.begin(fresh=True)
    write_evaluation(
        request.out_dir,
        evaluation,
        tag=test_type,
        settings={
            "test_type": test_type,
            **engine,
            "limits": asdict(request.limits),
        },
        inputs=[request.queries, request.qrels],
        seconds=round(time.monotonic() - started, 3),
        run_name=request.run_name,
        made=output.record,
    )
    output.end()
    show(evaluation, request.out_dir)


def _output(request: EvalRequest, test_type: str, engine: Mapping[str, object]) -> Output:
    """What is to be made. As the original's scripts, the doors replace an evaluation that was made
    with other settings; what is no evaluation they refuse."""
    settings = {
        "test_type": test_type,
        **engine,
        "limits": asdict(request.limits),
        "topk": request.topk,
        "paper_compat": request.paper_compat,
        "relevance_level": request.relevance_level,
    }
    files = {"queries": request.queries, "qrels": request.qrels}
    if request.turns is not None:
        files["turns"] = request.turns
    return evaluation_output(request.out_dir, settings, files, run_name=request.run_name)


def _of_rewrites(request: EvalRequest, qrels: Qrels) -> tuple[list[Searched], bool]:
    """The queries, and whether the turns are at hand. With them, all turns of the splits that the
    rewrites come from. Without, all qrels, and a query without a well-formed rewrite finds nothing:
    see NO_TURNS_NOTE."""
    rewrites = rewrites_to_measure(request.queries)
    by_qid = one_per_turn(rewrites)
    turns_path = request.turns or _turns_of_passport(request.queries)
    if turns_path is not None:
        turns = read_turns(turns_path)
        splits = {turn.split for turn in turns if turn.qid in by_qid}
        chosen = [turn for turn in turns if turn.split in splits]
        return searched_rewrites(chosen, rewrites, topic_switches_beside(turns_path)), True
    unknown = next((qid for qid in by_qid if qid not in qrels), None)
    if unknown is not None:
        raise DataError(f"{request.queries}: qid {unknown!r} has no line in {request.qrels}")
    searched = []
    for qid in qrels:
        rewrite = by_qid.get(qid)
        status = rewrite.status if rewrite else "missing"
        text = rewrite.text if rewrite else None
        searched.append(Searched(qid=qid, query=text or "", status=status))
    return searched, False


def _turns_of_passport(rewrites: Path) -> Path | None:
    """The turns file that the rewrites were made from, if it is still there and unchanged."""
    try:
        inputs = read_json_object(passport_path(rewrites)).get("inputs")
    except (OSError, DataError):
        return None
    for name, digest in inputs.items() if isinstance(inputs, dict) else ():
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
