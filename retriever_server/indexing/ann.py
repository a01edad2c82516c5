"""Adds an approximate index to a dense index folder, after measuring what it gets wrong."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from convsearch.errors import ConfigError
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
    on_forecast: Callable[[AnnForecast], None] | None = None,
    on_resume: Callable[[int], None] | None = None,
    on_progress: Progress | None = None,
) -> list[RankError]:
    """Builds it, measures each of the search parameters, keeps the last; returns the errors.

    factory: see `build_ann`. searches: such as `nprobe=32`, or empty for FAISS' defaults.
    queries: with their gold ids; without any, `sample_queries` draws num_samples. From then on the
    folder is searched approximately; deleting its folder `ann` makes it exact again. A build that
    was killed goes on at its last snapshot, at least snapshot_s after the one before.
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
    encoding_s = _seconds_to_encode(engine, texts)
    start = time.monotonic()
    exact = engine.ranks(texts, golds, TOPK)
    exact_speed = len(texts) / max(1e-3, time.monotonic() - start - encoding_s)
    errors = []
    for done, search in enumerate(searches, 1):
        report("measuring", done)
        approximate = AnnBackend(engine, AnnIndex.read(index_path, search))
        start = time.monotonic()
        ranks = approximate.ranks(texts, golds, TOPK)
        taken_s = max(1e-3, time.monotonic() - start - encoding_s)
        error = rank_error(
            exact,
            ranks,
            search=search,
            topk=TOPK,
            queries_per_s=len(texts) / taken_s,
            exact_queries_per_s=exact_speed,
        )
        errors.append(error)
    report("measuring", len(searches) + 1)
    return errors


def _seconds_to_encode(engine: DenseBackend, texts: list[str]) -> float:
    start = time.monotonic()
    engine.encode(texts)
    return time.monotonic() - start
