"""The squeezer `llm` in training, against a real endpoint that misbehaves on demand."""

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agent_case import PASSAGES, answer, call, some_questions
from agent_loop_case import ScriptedIds, config_of, episode_of, play
from convsearch_verl import replay
from convsearch_verl.agent_reward import episode_score
from convsearch_verl.agent_settings import AgentSettings, agent_settings
from convsearch_verl.replay import group_metrics, squeezer_calls
from convsearch_verl.squeezing import check_squeezer
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from live_server import serving

from convsearch.agent import strategy, tool_format
from convsearch.agent.model_squeezer import SqueezeBudget
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.agent.squeeze import SqueezeMeter
from convsearch.episodes import AgentRun
from convsearch.episodes.dialogue import token_counter
from convsearch.episodes.runner import play_block
from convsearch.episodes.squeezing import engine_squeezer
from convsearch.errors import EngineError
from convsearch.infer import SamplingParams
from convsearch.infer.openai_engine import OpenaiEngine
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Question


def endpoint() -> tuple[FastAPI, SimpleNamespace]:
    """Shortens to the queries. `deaf` queries get nothing, `hanging` ones get it too late. None is
    answered before so many are there as `together` says."""
    app = FastAPI()
    seen = SimpleNamespace(asked=[], now=0, most=0, together=0, deaf="$^", hanging="$^", status=200)

    @app.post("/v1/chat/completions")
    async def complete(request: Request):
        text = (await request.json())["messages"][-1]["content"]
        queries = text.split("Queries:\n")[1].split("\n\nPassages")[0]
        seen.asked.append(queries)
        seen.now += 1
        seen.most = max(seen.most, seen.now)
        while seen.most < seen.together:
            await asyncio.sleep(0.005)
        await asyncio.sleep(600 if re.search(seen.hanging, queries) else 0.02)
        seen.now -= 1
        if seen.status != 200:
            return JSONResponse({"error": "no"}, status_code=seen.status)
        said = "" if re.search(seen.deaf, queries) else f"About {queries}: Ada did."
        return {"choices": [{"message": {"content": said}}], "usage": {"completion_tokens": 9}}

    return app, seen


@pytest.fixture
def live() -> Iterator[tuple[str, SimpleNamespace]]:
    app, seen = endpoint()
    with serving(app) as address:
        yield address, seen


class Searching(ScriptedIds):
    """Every question searches for its own word, and then answers."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, [])

    def say(self, prompt: Any, limit: int, inline: bool) -> list[int]:
        dialogue = self.tokenizer.decode(prompt)
        word = re.findall(r"word\d+", dialogue)[-1]
        self.texts = [call("plain", f"Ada {word}"), answer("Ada Lovelace")]
        return super().say(prompt, limit, inline)


def llm(url: str, **more: Any) -> dict[str, Any]:
    return {"squeezer": "llm", "llm": {"url": url, "model": "s", **more}}


def shares(questions: int, scores: list[dict[str, float]]) -> dict[str, float]:
    uids = [str(i) for i in range(questions)]
    return group_metrics(uids, scores, "search_agent")


def scores_of(outputs: list[Any]) -> list[dict[str, float]]:
    reward = AgentSettings().reward
    return [episode_score(episode_of(o), ["Ada"], None, reward) for o in outputs]


def test_training_and_inference_squeeze_alike(tokenizer: Any, url: str, live: Any) -> None:
    address, seen = live
    [output] = play(Searching(tokenizer), config_of(url, **llm(address)))
    engine = Searching(tokenizer)
    engine.generate = engine.generate_chats  # pyright: ignore - what makes it an Engine
    asked = OpenaiEngine("s", address)
    squeezer = engine_squeezer(
        asked, name="llm:s", max_tokens=1024, budget=SqueezeBudget(),
        count_tokens=token_counter(asked),
    )  # fmt: skip
    tool = SearchTool(
        InMemoryRetriever(PASSAGES),
        SearchSettings(topk=2),
        squeezer=squeezer,
        count_tokens=token_counter(engine),  # pyright: ignore[reportArgumentType]
    )
    run = AgentRun(
        strategy=strategy("expand_search"),
        form=tool_format("plain"),
        params=SamplingParams(temperature=1.0, max_tokens=4000),
    )
    [dialogue] = play_block(some_questions(1), engine, tool, run)  # pyright: ignore
    asked.close()
    episode = episode_of(output)
    assert episode.spans == dialogue.state.spans
    assert "About - Ada word0: Ada did." in episode.spans[1].text
    assert episode.spans[1].squeezed is True
    assert seen.asked == ["- Ada word0"] * 2


def test_one_cap_holds_for_all_calls_of_a_worker(tokenizer: Any, url: str, live: Any) -> None:
    address, seen = live
    seen.together = 3
    config = config_of(url, **llm(address, concurrency=3))
    config.retriever.batch_size = 4  # so that several batches are squeezed side by side
    outputs = play(Searching(tokenizer), config, some_questions(16))
    assert len(seen.asked) == 16
    assert seen.most == 3
    scores = scores_of(outputs)
    assert squeezer_calls(scores) == (16, 0)
    assert shares(16, scores)["agent/squeezed_share"] == 1.0


def test_a_call_past_its_deadline_is_counted_and_the_rest_goes_on(
    tokenizer: Any, url: str, live: Any
) -> None:
    address, seen = live
    seen.hanging = r"word3\b"
    began = time.monotonic()
    config = config_of(url, **llm(address, deadline_s=2.0))
    outputs = play(Searching(tokenizer), config, some_questions(8))
    assert time.monotonic() - began < 60
    squeezed = [episode_of(o).spans[1].squeezed for o in outputs]
    assert squeezed == [i != 3 for i in range(8)]
    assert "Doc 1 (Title: Ada Lovelace)" in episode_of(outputs[3]).spans[1].text
    assert episode_of(outputs[3]).counts == {"squeezer_failed": 1}
    metrics = shares(8, scores_of(outputs))
    assert metrics["agent/squeezed_share"] == 7 / 8
    assert metrics["agent/squeezer_failed"] == 1 / 8


def test_nothing_waits_in_the_event_loop_nor_in_the_threads_of_verl(
    tokenizer: Any, url: str, live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = live
    seen.hanging = "word0"
    longest = 0.0

    class Ticking(Searching):
        async def generate(self, request_id: str, **asked: Any) -> Any:
            if len(self.asked) == 0:
                loop = asyncio.get_running_loop()
                loop.set_default_executor(ThreadPoolExecutor(1))
                self.ticking = loop.create_task(self.tick())
            return await super().generate(request_id, **asked)

        async def tick(self) -> None:
            nonlocal longest
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                await asyncio.to_thread(time.monotonic)
                longest = max(longest, time.monotonic() - before)

    play(Ticking(tokenizer), config_of(url, **llm(address, deadline_s=2.0)))
    assert 0.01 <= longest < 1.0  # the squeezer took two seconds


def test_more_than_a_tenth_of_failures_stops_the_run(
    tokenizer: Any, url: str, live: Any, caplog: pytest.LogCaptureFixture
) -> None:
    address, seen = live
    seen.deaf = r"word\d*7\b"
    config = config_of(url, **llm(address))
    with caplog.at_level(logging.WARNING):
        outputs = play(Searching(tokenizer), config, some_questions(100))
    assert squeezer_calls(scores_of(outputs)) == (100, 10)  # a tenth: warned of, not stopped
    assert "10 of 100 calls (10.0%)" in caplog.text
    seen.deaf = r"word\d*[37]\b"
    with pytest.raises(EngineError, match=r"20 of 100 calls \(20\.0%\).*mend the squeezer"):
        play(Searching(tokenizer), config, some_questions(100))
    meter = SqueezeMeter()  # what the sampler of a run holds, over all workers
    meter.add(*squeezer_calls(scores_of(outputs)))
    with pytest.raises(EngineError, match="20 of 110"):
        meter.add(10, 10)


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusing_endpoint_stops_the_run(
    status: int, tokenizer: Any, url: str, live: Any
) -> None:
    address, seen = live
    seen.status = status
    with pytest.raises(EngineError, match=f"HTTP {status}.*OPENAI_API_KEY"):
        play(Searching(tokenizer), config_of(url, **llm(address)))


def test_what_was_squeezed_is_kept_and_equal_calls_cost_once(
    tokenizer: Any, url: str, live: Any, tmp_path: Path
) -> None:
    address, seen = live
    config = config_of(url, **llm(address, cache=str(tmp_path / "cache.db")))
    [question] = some_questions(1)
    group = [
        Question(**{**asdict(question), "qid": f"q{i}"}) for i in range(5)
    ]  # the responses of one question, as GRPO plays them
    first = play(Searching(tokenizer), config, group)
    assert seen.asked == ["- Ada word0"]
    again = play(Searching(tokenizer), config, group)
    assert seen.asked == ["- Ada word0"]
    assert [episode_of(o).spans for o in first] == [episode_of(o).spans for o in again]


def test_the_token_budget_stops_the_run(tokenizer: Any, url: str, live: Any) -> None:
    address, _ = live
    with pytest.raises(EngineError, match="of its 20 tokens"):
        play(Searching(tokenizer), config_of(url, **llm(address, max_total_tokens=20)))


def test_a_run_begins_with_a_trial_and_says_what_it_may_cost(
    live: Any, caplog: pytest.LogCaptureFixture
) -> None:
    address, seen = live
    node = llm(address, usd_per_million_input=1.0)
    with caplog.at_level(logging.WARNING):
        check_squeezer(agent_settings(node), episodes_per_step=10)
    assert seen.asked == ["- tea ingredients"]
    assert "every training step the squeezer is asked at most 30 times" in caplog.text
    assert "USD" in caplog.text
    seen.deaf = "tea"
    with pytest.raises(EngineError, match=f"'s' at {address} gave no text"):
        check_squeezer(agent_settings(node), episodes_per_step=10)
    check_squeezer(agent_settings({"squeezer": "extractive"}), episodes_per_step=10)
    assert len(seen.asked) == 2


def test_the_sampler_of_a_run_counts_over_all_workers(
    url: str, live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = live
    buffer = replay.strict_replay_buffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        refill_fn=lambda count: count,
        sampler_kwargs={
            "poll_interval_s": 0.1,
            "reward_manager": "search_agent",
            "retriever": {"url": url, "timeout_s": 5.0},
            "search_agent": llm(address),
            "rollout": "vllm",
            "rollouts": 5,
            "filter_groups": {"enable": False},
            "train_batch_size": 12,
            "gen_batch_size": None,
            "mini_batch": 4,
        },
    )
    assert len(seen.asked) == 1  # the trial
    names = dict.fromkeys(["score", *replay.METRICS["search_agent"][1]], 0.0)
    failed = 0.0
    batch = SimpleNamespace(keys=[f"{i}_0" for i in range(12)], tags=[{"prompt_len": 1}] * 12)
    batch.reorder = lambda order: None
    monkeypatch.setattr(replay.ReplayBuffer, "sample", lambda *_: (batch, {}))
    monkeypatch.setattr(
        replay,
        "_scores",
        lambda *_: [{**names, "squeezer_calls": 3.0, "squeezer_failed": failed}] * 12,
    )
    for _ in range(3):
        _, metrics = buffer.sample(1, "train", 12)
        assert metrics["agent/squeezed_share"] == 1.0
    failed = 1.0
    _, metrics = buffer.sample(4, "train", 12)
    assert metrics["agent/squeezed_share"] == pytest.approx(2 / 3)
    with pytest.raises(EngineError, match=r"the squeezer failed in 24 of 180 calls \(13\.3%\)"):
        buffer.sample(5, "train", 12)
