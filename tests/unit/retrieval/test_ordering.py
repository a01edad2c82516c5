"""Rank and list are read off the same order, ties included."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_server.ordering import best_positions, id_order, rank_of_best

SCORES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(scores=SCORES, data=st.data())
def test_rank_and_list_equal_a_full_sort(scores: list[float], data: st.DataObject) -> None:
    ids = data.draw(st.permutations([f"d{i}" for i in range(len(scores))]))
    golds = data.draw(st.lists(st.integers(0, len(scores) - 1), min_size=1, max_size=4))
    topk = data.draw(st.integers(1, 14))
    by_score = np.asarray(scores, dtype=np.float32)
    order = id_order(ids)

    full = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
    expected = [i for i in full if scores[i] > 0][:topk]
    assert best_positions(by_score, order, topk).tolist() == expected
    ranks = [expected.index(g) + 1 for g in golds if g in expected]
    assert rank_of_best(by_score, order, golds, topk) == (min(ranks) if ranks else None)


def test_ids_are_ordered_as_strings_not_numbers() -> None:
    assert id_order(["p10", "p9", "p1"]).tolist() == [1, 2, 0]
