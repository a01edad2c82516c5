"""Adds an approximate index to a dense index folder, after measuring what it gets wrong."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from convsearch.errors import ConfigError
from convsearch.retrieval.protocol import Retriever
from retriever_server.backends.ann import AnnBackend
from retriever_server.backends.dense import DenseBackend
from retriever_server.dense.ann import ANN, AnnIndex, RankError, rank_error
from retriever_server.dense.ann_build import SNAPSHOT_S, Progress, build_ann, in_making
from retriever_server.dense.ann_forecast import AnnForecast, forecast_ann, refuse_too_large
from retriever_server.dense.faiss_index import new_index
from retriever_server.indexing.dense import ids_at

TOPK = 100
_QUERY_WORDS = 8


def sample_queries(engine: DenseBackend, number: int, seed: int) -> list[tuple[str, list[str]]]:
    """(query, its gold ids): eight words in a row out of a passage, that passage being the gold.
    Passages without a word are left out. Easier than questions of users, so errors on those are
    larger."""
    rng = random.Random(seed)
    total = len(engine.store)
    chosen = rng.sample(range(total), min(number, total))
    found = []
    for passage in engine.passages(ids_at(engine.store, chosen)):
        words = f"{passage.title} {passage.text}".split()
        first = rng.randrange(max(1, len(words) - _QUERY_WORDS + 1))
        query = " ".join(words[first : first + _QUERY_WORDS])
        if any(character.isalnum() for character in query):
            found.append((query, [passage.doc_id]))
    return found


def build_ann_index(
    index_dir: Path,
    *,
    encoder_path: Path,
    factory: str,
    searches: Sequence[str],
    queries: Sequence[tuple[str, list[str]]] = (),
    num_samples: int = 500,
    seed: int = 0,
    snapshot_s: float = SNAPSHOT_S,
    keep: bool = False,
    on_forecast: Callable[[AnnForecast], None] | None = None,
    on_resume: Callable[[int], None] | None = None,
    on_progress: Progress | None = None,
) -> list[RankError]:
    """Builds it, measures each of the search parameters, keeps the last; returns the errors.

    factory: see `build_ann`. searches: such as `nprobe=32`, or empty for FAISS' defaults.
    queries: with their gold ids; without any, `sample_queries` draws num_samples. From then on the
    folder is searched approximately; deleting its folder `ann` makes it exact again. A build that
    was killed goes on at its last snapshot, at least snapshot_s after the one before.
    keep: one of the same factory, search and vectors is left as it is, and another one refused
    instead of replaced.
    on_forecast: called before training, with what the whole will take. on_resume, on_progress: see
    `build_ann`; after `adding` comes `measuring`, with the settings done, the exact one first.
    Raises ConfigError where memory or disk does not suffice, for search parameters that do not fit
    the factory, and as `in_making` and `build_ann` do.
    """
    if not searches:
        raise ConfigError('name at least one search setting, such as "nprobe=32"')
    engine = DenseBackend.load_exact(index_dir, encoder_path)
    for search in searches:  # a misspelt one is not found out after hours
        AnnIndex(new_index(engine.vectors.dim, factory), search)
    if keep and (made := AnnIndex.error_of(index_dir / ANN, engine.vectors, factory, searches[-1])):
        return [made]
    with in_making(index_dir / ANN, engine.vectors, factory) as snapshots:
        forecast = forecast_ann(engine.vectors, factory)
        if on_forecast is not None:
            on_forecast(forecast)
        refuse_too_large(forecast, index_dir / ANN)
        asked = list(queries) or sample_queries(engine, num_samples, seed)
        if not asked:
            raise ConfigError(
                f"{index_dir}: no passage holds a word to ask for; name turns and qrels"
            )
        build_ann(
            engine.vectors, factory, snapshots,
            snapshot_s=snapshot_s, on_resume=on_resume, on_progress=on_progress,
        )  # fmt: skip
        errors = _errors(engine, snapshots.path, searches, asked, on_progress)
        AnnIndex.write_card(snapshots.whole, engine.vectors, factory, errors[-1])
    return errors


def _errors(
    engine: DenseBackend,
    index_path: Path,
    searches: Sequence[str],
    asked: Sequence[tuple[str, list[str]]],
    on_progress: Progress | None,
) -> list[RankError]:
    """Of each of the search parameters."""
    report = on_progress or (lambda _what, _done: None)
    report("measuring", 0)
    texts, golds = [query for query, _ in asked], [gold for _, gold in asked]
    engine = engine.with_encoded(texts)
    exact, exact_speed = _timed_ranks(engine, texts, golds)
    errors = []
    for done, search in enumerate(searches, 1):
        report("measuring", done)
        approximate = AnnBackend(engine, AnnIndex.read(index_path, search))
        ranks, speed = _timed_ranks(approximate, texts, golds)
        error = rank_error(
            exact,
            ranks,
            search=search,
            topk=TOPK,
            queries_per_s=speed,
            exact_queries_per_s=exact_speed,
        )
        errors.append(error)
    report("measuring", len(searches) + 1)
    return errors


def _timed_ranks(
    engine: Retriever, texts: list[str], golds: list[list[str]]
) -> tuple[list[int | None], float]:
    """Ranks, and queries per second; a first call is not timed, in which loops are compiled."""
    engine.ranks(texts[:1], golds[:1], TOPK)
    start = time.perf_counter()
    ranks = engine.ranks(texts, golds, TOPK)
    return ranks, len(texts) / (time.perf_counter() - start)
