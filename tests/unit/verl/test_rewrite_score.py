"""The score function by itself: what it searches, what it never searches, what it raises."""

import socket
from pathlib import Path

import pytest
from convsearch_verl.rewrite_score import compute_score
from live_server import serving

from convsearch.errors import ConfigError, DataError, RetrieverError
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.rewards.rank_incentive import rank_incentive_reward
from convsearch.types import Passage
from retriever_server.app import create_app

DOOR = Path(__file__).parents[3] / "verl" / "verl" / "utils" / "reward_score" / "rewrite_r1.py"
GOOD = "<think>names</think>\n<rewrite>amber castle</rewrite>"
BAD = "<rewrite>amber castle</rewrite>"


@pytest.fixture(scope="module")
def url():
    passages = [
        Passage(doc_id="p1", title="", text="amber castle"),
        Passage(doc_id="p2", title="", text="amber river amber"),
        Passage(doc_id="p3", title="", text="violin"),
    ]
    app = create_app(InMemoryRetriever(passages), qrels={"q2": {"p2": 1}})
    with serving(app) as address:
        yield address


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(("golds", "rank"), [(["p1"], 1), (["p2"], 2), (["p2", "p1"], 1)])
def test_the_best_gold_passage_counts(url: str, golds: list[str], rank: int) -> None:
    score = compute_score("toy", GOOD, golds, {}, retriever_url=url)
    assert score["score"] == rank_incentive_reward(rank)
    assert (score["rank"], score["found"], score["malformed"]) == (rank, 1.0, 0.0)
    assert score["reciprocal_rank"] == 1 / rank


def test_a_query_id_goes_before_gold_ids(url: str) -> None:
    score = compute_score("toy", GOOD, ["p1"], {"query_id": "q2"}, retriever_url=url)
    assert score["rank"] == 2


def test_not_found_is_worth_nothing_and_is_told_from_malformed(url: str) -> None:
    score = compute_score("toy", GOOD, ["p3"], {}, retriever_url=url)
    assert (score["score"], score["rank"], score["found"]) == (0.0, 0.0, 0.0)


def test_the_server_comes_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVER_URL", url)
    assert compute_score("toy", GOOD, ["p1"])["rank"] == 1


def test_a_malformed_response_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRIEVER_URL", raising=False)
    score = compute_score("toy", BAD, ["p1"], {})
    assert (score["score"], score["rank"], score["malformed"]) == (-0.1, -1.0, 1.0)


def test_a_dead_server_is_an_error_and_never_a_reward(dead_url: str) -> None:
    with pytest.raises(RetrieverError, match=dead_url):
        compute_score("toy", GOOD, ["p1"], {}, retriever_url=dead_url, attempts=1, timeout_s=5)


def test_no_server_at_all_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRIEVER_URL", raising=False)
    with pytest.raises(ConfigError, match="RETRIEVER_URL"):
        compute_score("toy", GOOD, ["p1"], {})


def test_a_row_without_a_target_is_named(url: str) -> None:
    with pytest.raises(DataError, match="query_id"):
        compute_score("toy", GOOD, [], {}, retriever_url=url)


def test_the_door_is_the_same_function() -> None:
    names: dict[str, object] = {}
    exec(compile(DOOR.read_text(), DOOR, "exec"), names)
    assert names["compute_score"] is compute_score
    assert len(DOOR.read_text().splitlines()) <= 12
