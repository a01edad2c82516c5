"""What the original's run files get wrong, and ours must not (docs/reproduction.md)."""

from convsearch.pipeline.evaluation import Evaluation, evaluate_queries
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage, Turn


def evaluated(num_passages: int, query: str, topk: int) -> Evaluation:
    """One question over passages of which the last and longest is relevant."""
    passages = [
        Passage(doc_id=str(i), title="", text="amber" + " filler" * i) for i in range(num_passages)
    ]
    turn = Turn(qid="q", conv_id="c", turn=1, split="test", question=query)
    gold = {"q": {str(num_passages - 1): 1}}
    return evaluate_queries([turn], {"q": query}, InMemoryRetriever(passages), gold, topk)


def test_a_short_list_is_not_filled_up() -> None:
    found = evaluated(3, "amber", 100)
    assert sorted(hit.doc_id for hit in found.run["q"]) == ["0", "1", "2"]
    nothing = evaluated(3, "violin", 100)
    assert nothing.run["q"] == []
    assert nothing.metrics["recall_100"] == 0.0


def test_scores_of_a_run_fall_with_its_ranks_at_any_depth() -> None:
    found = evaluated(260, "amber", 300)
    scores = [hit.score for hit in found.run["q"]]
    assert len(scores) == 260
    assert scores == sorted(set(scores), reverse=True)
    assert scores[-1] > 0
    assert found.ranks["q"] == 260
    assert found.metrics["mrr"] == 1 / 260
