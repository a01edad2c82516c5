"""`convsearch eval` with several methods: a folder for each and one table of all."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.cli import options as o
from convsearch.data.dataset import Dataset
from convsearch.made import MADE_OF, Output
from convsearch.passport import write_passport
from convsearch.pipeline.evaluation import Evaluation
from convsearch.pipeline.evaluation_files import unknown_golds_line, write_evaluation
from convsearch.pipeline.evaluation_output import claim, claim_method, table_output
from convsearch.pipeline.measured_rewrites import warn_of_another_engine
from convsearch.pipeline.method_table import TABLE_FILES, Row, markdown_table, write_table
from convsearch.pipeline.methods import Method, MethodOptions, choose_methods, evaluate_methods
from convsearch.pipeline.search import SearchOptions, open_retriever, search_settings
from convsearch.pipeline.searched import QueryLimits
from convsearch.retrieval import Retriever


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `convsearch eval` is asked for."""

    data: Dataset
    split: str
    methods: MethodOptions
    search: SearchOptions
    topk: int
    limits: QueryLimits
    paper_compat: bool
    relevance_level: int
    seed: int
    out: Path
    fresh: bool = False

    def settings(self, retriever: Retriever) -> dict[str, object]:
        """For the passport."""
        return {
            "dataset": self.data.name,
            "split": self.split,
            **search_settings(self.search, retriever),
            "limits": asdict(self.limits),
        }

    def shaping(self, settings: Mapping[str, object]) -> dict[str, object]:
        """`settings`, and what else decides the numbers."""
        return {
            **settings,
            "topk": self.topk,
            "paper_compat": self.paper_compat,
            "relevance_level": self.relevance_level,
            "seed": self.seed,
        }


def make(request: Request) -> None:
    """Evaluates all methods, writes a folder for each, then the table; the table is shown."""
    started = time.monotonic()
    data = request.data
    methods = choose_methods(
        data.turns(request.split),
        request.methods,
        switches=data.topic_switches(),
        limits=request.limits,
    )
    rows: dict[str, Row] = {}
    said: set[str] = set()
    shared = [data.turns_path, data.qrels_path]
    with open_retriever(**vars(request.search)) as retriever, ExitStack() as bars:
        settings = request.settings(retriever)
        for method in methods:
            if method.source:
                warn_of_another_engine(method.source, settings["engine"])
        output = _output(request, methods, settings)
        claim(output, fresh=request.fresh)
        for method in methods:
            claim_method(request.out / method.folder)
        output.begin(fresh=request.fresh)

        def progress_of(name: str) -> Callable[[int, int], None]:
            bars.close()  # one bar at a time
            return bars.enter_context(o.progress_bar(f"searching {name}"))

        def done(method: Method, evaluation: Evaluation) -> None:
            said.add(unknown_golds_line(evaluation.golds))
            record = write_evaluation(
                request.out / method.folder,
                evaluation,
                tag=method.folder,
                settings={**settings, "method": method.name, "trained": method.trained},
                inputs=[*shared, *([method.source] if method.source else [])],
                seed=request.seed,
                made={MADE_OF: {**output.made_of, "method": method.name}},
            )
            rows[method.name] = Row(
                name=method.name, trained=method.trained, folder=method.folder, record=record
            )

        evaluate_methods(
            methods,
            retriever,
            data.qrels,
            request.topk,
            limits=request.limits,
            paper_compat=request.paper_compat,
            relevance_level=request.relevance_level,
            seed=request.seed,
            progress_of=progress_of,
            on_done=done,
        )
    title = f"{data.name}, {request.split}"
    ordered = [rows[method.name] for method in methods]
    write_table(request.out, ordered, title=title)
    write_passport(
        request.out / "run.json",
        stage="eval table",
        settings={
            **settings,
            "topk": request.topk,
            "paper_compat": request.paper_compat,
            "relevance_level": request.relevance_level,
            "methods": [method.name for method in methods],
        },
        inputs=[*shared, *(method.source for method in methods if method.source)],
        seed=request.seed,
        seconds=round(time.monotonic() - started, 3),
        made=output.record,
    )
    output.end()
    o.say(markdown_table(ordered, title=title).rstrip())
    for line in filter(None, said):
        o.say(line)
    o.say(f"written to {request.out}")


def _output(request: Request, methods: Sequence[Method], settings: Mapping[str, object]) -> Output:
    """What is to be made."""
    files = {"turns": request.data.turns_path, "qrels": request.data.qrels_path}
    return table_output(
        request.out,
        {**request.shaping(settings), "methods": [method.name for method in methods]},
        {**files, **{f"rewrites {m.name}": m.source for m in methods if m.source}},
        folders=[method.folder for method in methods],
        results=TABLE_FILES,
    )
