"""The methods of one table: which queries each searches, what their union finds, in which order.

Methods that need no training come first: what a trained rewriter must beat is at the top.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convsearch.errors import ConfigError
from convsearch.eval import RELEVANCE_LEVEL
from convsearch.files import Qrels
from convsearch.named_paths import named_path
from convsearch.pipeline.baselines import baseline_queries, is_concatenation, joined_queries
from convsearch.pipeline.evaluation import Evaluation, Progress, evaluate_searched, score_run
from convsearch.pipeline.layout import row_folder
from convsearch.pipeline.measured_rewrites import rewrites_to_measure
from convsearch.pipeline.search import with_query_tokens
from convsearch.pipeline.searched import (
    QueryLimits,
    Searched,
    cut_queries,
    searched_queries,
    searched_rewrites,
)
from convsearch.retrieval import Retriever
from convsearch.retrieval.fusion import fused
from convsearch.types import Hit, Turn

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_BY_TEXT = ".text"
_BY_RANKS = ".rrf"


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """What the user asks for, as written on the command line."""

    baselines: Sequence[str] = ()
    """Names that `baseline_queries` knows."""
    prompted: Sequence[str] = ()
    """`name=FILE`: rewrites or pseudo-documents of a model that was not trained for this."""
    rewrites: Sequence[str] = ()
    """`name=FILE`: rewrites of a trained policy."""
    unions: Sequence[str] = ()
    """`name+name`: two or more of the above, joined by text and by reciprocal ranks."""

    @property
    def num_methods(self) -> int:
        """How many are named, each union counted once."""
        return sum(map(len, (self.baselines, self.prompted, self.rewrites, self.unions)))

    @property
    def is_table(self) -> bool:
        """Whether a table is asked for: several methods, or one that is given a name."""
        if self.num_methods > 1 or self.prompted or self.unions:
            return True
        return any(named_path(spec)[0] is not None for spec in self.rewrites)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table."""

    name: str
    searched: tuple[Searched, ...]
    trained: bool
    """Whether something of it was trained for this task."""
    concatenated: bool = False
    """Whether its queries are concatenations, of which dense engines read more."""
    fused: tuple[str, ...] = ()
    """Names of the methods whose rankings are fused; nothing is searched then."""
    source: Path | None = None
    """File of its rewrites."""

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return row_folder(self.name)


def choose_methods(
    turns: Sequence[Turn],
    options: MethodOptions,
    *,
    switches: Mapping[str, bool | None] | None = None,
    limits: QueryLimits | None = None,
) -> list[Method]:
    """The rows in the order of the table: training-free ones first, else as they were asked for.

    Raises ConfigError for an unknown or repeated name, MissingFileError and DataError for a file.
    """
    single: dict[str, Method] = {}

    def add(method: Method) -> None:
        if method.folder in {other.folder for other in single.values()}:
            raise ConfigError(f"two methods are called {method.name!r}; give each its own name")
        searched = cut_queries(method.searched, limits.words if limits else None)
        single[method.name] = replace(method, searched=tuple(searched))

    for name in options.baselines:
        queries = baseline_queries(turns, name)
        searched = searched_queries(turns, queries, switches)
        add(
            Method(
                name=name,
                searched=tuple(searched),
                trained=False,
                concatenated=is_concatenation(name),
            )
        )
    for specs, trained in ((options.prompted, False), (options.rewrites, True)):
        for spec in specs:
            name, path = _named_file(spec)
            searched = searched_rewrites(turns, rewrites_to_measure(path), switches)
            add(Method(name=name, searched=tuple(searched), trained=trained, source=path))
    unions = [row for spec in dict.fromkeys(options.unions) for row in _union(spec, single)]
    for union in unions:
        add(union)
    return sorted(single.values(), key=lambda method: method.trained)


def evaluate_methods(
    methods: Sequence[Method],
    retriever: Retriever,
    qrels: Qrels,
    topk: int = 100,
    *,
    limits: QueryLimits | None = None,
    paper_compat: bool = False,
    relevance_level: int = RELEVANCE_LEVEL,
    seed: int = 0,
    progress_of: Callable[[str], Progress] | None = None,
    on_done: Callable[[Method, Evaluation], None],
) -> None:
    """Searches each method and calls `on_done` with it; fused ones come last.

    A fused ranking is made of its methods' rankings, each as deep as topk.
    progress_of: what is to hear of the searches of the method of that name.
    """
    found: dict[str, Evaluation] = {}
    for method in sorted(methods, key=lambda each: bool(each.fused)):
        if method.fused:
            parts = [found[name] for name in method.fused]
            found[method.name] = score_run(
                method.searched,
                _fused_run(method, parts, topk, paper_compat),
                qrels,
                topk,
                paper_compat=paper_compat,
                relevance_level=relevance_level,
                seed=seed,
                golds=parts[0].golds,
            )
        else:
            cut = limits or QueryLimits()
            tokens = cut.concat_tokens if method.concatenated else cut.tokens
            found[method.name] = evaluate_searched(
                method.searched,
                with_query_tokens(retriever, tokens),
                qrels,
                topk,
                paper_compat=paper_compat,
                relevance_level=relevance_level,
                seed=seed,
                on_progress=progress_of(method.name) if progress_of else None,
            )
        on_done(method, found[method.name])


def _fused_run(
    method: Method, parts: Sequence[Evaluation], topk: int, paper_compat: bool
) -> dict[str, list[Hit]]:
    """As in the union by text, a part without a well-formed rewrite of a turn adds nothing."""
    run = {}
    for i, s in enumerate(method.searched):
        if s.status == "ok" or not paper_compat:
            good = [part for part in parts if part.searched[i].status == "ok"] or parts[:1]
            run[s.qid] = fused([part.run[s.qid] for part in good])[:topk]
    return run


def _named_file(spec: str) -> tuple[str, Path]:
    name, path = named_path(spec)
    if name is None or not path or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{spec}: name each of several methods, as NAME=FILE (letters, digits, . _ : -)"
        )
    return name, Path(path)


def union_rows(spec: str) -> tuple[str, str]:
    """Names of the rows of a union: by text, and by reciprocal ranks."""
    return spec + _BY_TEXT, spec + _BY_RANKS


def _union(spec: str, methods: Mapping[str, Method]) -> list[Method]:
    names = spec.split("+")
    unknown = [name for name in names if name not in methods]
    if unknown or len(set(names)) < 2 or len(set(names)) < len(names):
        known = ", ".join(methods) or "none"
        raise ConfigError(
            f"--union {spec}: name two or more different methods of this call, as A+B; its "
            f"methods: {known}"
        )
    parts = [methods[name] for name in names]
    joined = tuple(joined_queries([part.searched for part in parts]))
    trained = any(part.trained for part in parts)
    by_text, by_ranks = union_rows(spec)
    return [
        Method(name=by_text, searched=joined, trained=trained, concatenated=True),
        Method(name=by_ranks, searched=joined, trained=trained, fused=tuple(names)),
    ]
