"""Adds an approximate index to a dense index folder, after measuring what it gets wrong."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from convsearch.errors import ConfigError
from retriever_server.backends.ann import AnnBackend
from retriever_server.backends.dense import DenseBackend
from retriever_server.dense.ann import ANN, AnnIndex, RankError, rank_error
from retriever_server.dense.ann_forecast import AnnForecast, forecast_ann, refuse_too_large
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
    on_forecast: Callable[[AnnForecast], None] | None = None,
) -> list[RankError]:
    """Builds it, measures each of the search parameters, keeps the last; returns the errors.

    factory: see `AnnIndex.build`. searches: such as `nprobe=32`, or empty for FAISS' defaults.
    queries: with their gold ids; without any, `sample_queries` draws num_samples. From then on the
    folder is searched approximately; deleting its folder `ann` makes it exact again.
    on_forecast: called before training, with what the whole will take. Raises ConfigError where
    memory or disk does not suffice, or what `AnnIndex.build` does.
    """
    if not searches:
        raise ConfigError('name at least one search setting, such as "nprobe=32"')
    engine = DenseBackend.load_exact(index_dir, encoder_path)
    forecast = forecast_ann(engine.vectors, factory)
    if on_forecast is not None:
        on_forecast(forecast)
    refuse_too_large(forecast, index_dir / ANN)
    asked = list(queries) or sample_queries(engine, num_samples, seed)
    if not asked:
        raise ConfigError(f"{index_dir}: no passage holds a word to ask for; name turns and qrels")
    texts, golds = [query for query, _ in asked], [gold for _, gold in asked]
    index, encoding_s = AnnIndex.build(engine.vectors, factory), _seconds_to_encode(engine, texts)
    start = time.monotonic()
    exact = engine.ranks(texts, golds, TOPK)
    exact_speed = len(texts) / max(1e-3, time.monotonic() - start - encoding_s)
    errors = []
    for search in searches:
        index = index.with_search(search)
        approximate = AnnBackend(engine, index)
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
    index.save(index_dir / ANN, engine.vectors, factory, errors[-1])
    return errors


def _seconds_to_encode(engine: DenseBackend, texts: list[str]) -> float:
    start = time.monotonic()
    engine.encode(texts)
    return time.monotonic() - start
