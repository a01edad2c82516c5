"""The lines of `rollouts/<step>.jsonl`: what the reward manager said, in plain values."""

import pytest
from convsearch_verl.rewrite_score import malformed_score, rank_score
from convsearch_verl.rollout_dump import _order, outcome


@pytest.mark.parametrize(("rank", "written"), [(1, 1), (37, 37), (None, None)])
def test_a_rank_is_a_whole_number_or_null(rank: int | None, written: int | None) -> None:
    told = outcome({**rank_score(rank), "qid": "q", "query": "a b", "status": "ok"})
    assert told["rank"] == written
    assert isinstance(told["rank"], int) or told["rank"] is None
    assert told["reward"] == told["score"]
    assert (told["qid"], told["query"], told["status"]) == ("q", "a b", "ok")


def test_what_was_not_searched_has_no_rank() -> None:
    told = outcome({**malformed_score(), "qid": "q", "query": "", "status": "malformed"})
    assert told["rank"] is None
    assert told["malformed"] == 1.0


def test_an_agents_numbers_are_written_as_they_are() -> None:
    assert outcome({"score": 0.2, "em": 0.0}) == {"score": 0.2, "em": 0.0, "reward": 0.2}


def test_a_group_is_together_and_in_its_order() -> None:
    keys = ["b_10_0", "a_2_0", "b_9_0", "a_10_0"]
    assert sorted(keys, key=_order) == ["a_2_0", "a_10_0", "b_9_0", "b_10_0"]
