"""Reciprocal rank fusion of two engines."""

import random
from collections.abc import Sequence

import pytest
from small_corpus import random_passages, random_queries

from convsearch.errors import ConfigError, DataError
from convsearch.retrieval import Retriever
from convsearch.retrieval.fusion import fused
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Hit
from retriever_server.backends.hybrid import HybridBackend

PASSAGES = random_passages(60)


@pytest.fixture
def engines() -> tuple[InMemoryRetriever, InMemoryRetriever]:
    return InMemoryRetriever(PASSAGES, 0.9, 0.4), InMemoryRetriever(PASSAGES, 3.0, 1.0)


def hits(*doc_ids: str) -> list[Hit]:
    return [Hit(doc_id=doc_id, score=-float(i)) for i, doc_id in enumerate(doc_ids)]


def test_the_sum_of_reciprocal_ranks_decides_and_ties_go_by_id() -> None:
    [first, *rest] = fused([hits("a", "b", "c"), hits("b", "d", "e")])
    assert first == Hit(doc_id="b", score=1 / 62 + 1 / 61)
    assert [hit.doc_id for hit in rest] == ["a", "d", "c", "e"]
    assert fused([hits("z"), hits("y")])[0].doc_id == "y"
    assert fused([[], []]) == []


def test_ranks_are_places_in_the_fused_lists(
    engines: tuple[InMemoryRetriever, InMemoryRetriever],
) -> None:
    hybrid, rng = HybridBackend(*engines), random.Random(0)
    assert isinstance(hybrid, Retriever)
    queries = random_queries(30)
    golds = [[p.doc_id for p in rng.sample(PASSAGES, 2)] for _ in queries]
    whole = [fused([engine.search([q], 1000)[0] for engine in engines]) for q in queries]
    assert whole != [engines[0].search([q], 1000)[0] for q in queries]
    assert hybrid.search(queries, 7) == [found[:7] for found in whole]
    for query_ranks, found, ids in zip(hybrid.ranks(queries, golds, 20), whole, golds, strict=True):
        places = [i for i, hit in enumerate(found[:20], 1) if hit.doc_id in ids]
        assert query_ranks == (places[0] if places else None)


def test_unknown_golds_and_other_corpora_are_refused(
    engines: tuple[InMemoryRetriever, InMemoryRetriever],
) -> None:
    with pytest.raises(DataError, match="'nope'"):
        HybridBackend(*engines).ranks(["amber"], [["nope"]], 10)
    with pytest.raises(ConfigError, match="9 and 60 passages"):
        HybridBackend(engines[0], InMemoryRetriever(PASSAGES[:9]))


def test_settings_are_in_the_fingerprint(
    engines: tuple[InMemoryRetriever, InMemoryRetriever],
) -> None:
    one, other = HybridBackend(*engines), HybridBackend(*engines, depth=50)
    assert one.info.fingerprint == HybridBackend(*engines).info.fingerprint
    assert one.info.fingerprint != other.info.fingerprint


def test_a_cut_of_queries_reaches_the_engine_that_has_one() -> None:
    class Cutting(InMemoryRetriever):
        cut = 99

        def with_query_length(self, max_length: int) -> "Cutting":
            other = Cutting(PASSAGES)
            other.cut = max_length
            return other

        def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
            return super().search([" ".join(q.split()[: self.cut]) for q in queries], topk)

    plain = InMemoryRetriever(PASSAGES)
    hybrid = HybridBackend(Cutting(PASSAGES), plain)
    queries = random_queries(20)
    firsts = [query.split()[0] for query in queries]
    expected = [
        fused([Cutting(PASSAGES).search([first], 1000)[0], plain.search([query], 1000)[0]])[:9]
        for first, query in zip(firsts, queries, strict=True)
    ]
    assert hybrid.with_query_length(1).search(queries, 9) == expected
    assert hybrid.search(queries, 9) != expected
