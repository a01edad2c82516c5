"""The agent loop of training: ids as drawn, a mask on them alone, the episode of inference."""

import asyncio
import socket
from typing import Any

import numpy as np
import pytest
from agent_case import INJECTIONS, PASSAGES, answer, call, some_questions
from agent_loop_case import (
    CountingRetriever,
    ScriptedIds,
    config_of,
    episode_of,
    play,
    row_of,
    script,
)
from convsearch_verl.agent_reward import AgentRewardManager
from convsearch_verl.search_loop import EPISODE
from live_server import serving
from tensordict import TensorDict
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from convsearch.agent import strategy, tool_format
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.agent.squeeze import ExtractiveSqueezer
from convsearch.episodes import AgentRun
from convsearch.episodes.dialogue import token_counter
from convsearch.episodes.runner import play_block
from convsearch.errors import ConfigError, DataError, EngineError, RetrieverError
from convsearch.infer import SamplingParams
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage, Question
from retriever_server.app import create_app

LONG = SamplingParams(temperature=1.0, max_tokens=4000)


@pytest.mark.parametrize("form", ["plain", "nano", "hermes", "search_r1"])
@pytest.mark.parametrize("squeezer", ["none", "extractive"])
def test_training_and_inference_play_the_same_episode(
    tokenizer: Any, url: str, form: str, squeezer: str
) -> None:
    name = "search_r1" if form == "search_r1" else "expand_search"
    texts = script(form, "no action", call(form, "tea"), answer("Ada Lovelace"))
    server = ScriptedIds(tokenizer, texts)
    [output] = play(
        server, config_of(url, strategy=name, tool_format=form, squeezer=squeezer, max_turns=5)
    )
    engine = ScriptedIds(tokenizer, texts)
    count = token_counter(engine)  # pyright: ignore[reportArgumentType]
    tool = SearchTool(
        InMemoryRetriever(PASSAGES),
        SearchSettings(topk=2),
        squeezer=ExtractiveSqueezer(count) if squeezer == "extractive" else None,
        count_tokens=count,
    )
    run = AgentRun(
        strategy=strategy(name, max_turns=5), form=tool_format(form), params=LONG, batch_size=1
    )
    engine.generate = engine.generate_chats  # pyright: ignore - what makes it an Engine
    [dialogue] = play_block(some_questions(1), engine, tool, run)  # pyright: ignore
    episode = episode_of(output)
    assert episode.answer == "Ada Lovelace"
    assert episode.spans == dialogue.state.spans
    assert (episode.doc_ids, episode.queries) == (dialogue.state.doc_ids, dialogue.state.queries)
    assert episode.counts == dict(dialogue.state.counts) == {"no_action": 1}
    assert episode.num_model_tokens == dialogue.state.model_tokens
    track = dialogue.track
    assert (*output.prompt_ids, *output.response_ids) == track.ids
    assert output.response_mask == [int(own) for own in track.mask[track.num_prompt :]]


@pytest.mark.parametrize("form", ["plain", "hermes", "search_r1"])
def test_the_mask_is_on_drawn_ids_and_nowhere_else(tokenizer: Any, url: str, form: str) -> None:
    name = "search_r1" if form == "search_r1" else "expand_search"
    server = ScriptedIds(tokenizer, script(form, call(form, "tea"), answer("Ada")))
    [output] = play(server, config_of(url, strategy=name, tool_format=form))
    ids = [*output.prompt_ids, *output.response_ids]
    begin = len(output.prompt_ids)
    expected, log_probs = [0] * len(ids), [0.0] * len(ids)
    assert len(server.drawn) == 3
    for prompt, drawn in server.drawn:
        assert ids[: len(prompt)] == prompt  # what a turn reads is what came before it
        end = len(prompt) + len(drawn)
        assert ids[len(prompt) : end] == drawn
        expected[len(prompt) : end] = [1] * len(drawn)
        log_probs[len(prompt) : end] = [-1.0 - i for i in range(len(drawn))]
    assert output.response_mask == expected[begin:]
    assert output.response_logprobs == log_probs[begin:]
    assert 0 in output.response_mask
    assert output.response_mask[-1] == 1
    assert {asked["request_id"] for asked in server.asked} == {server.asked[0]["request_id"]}
    assert output.extra_fields["min_global_steps"] == 1
    assert output.extra_fields["max_global_steps"] == 13
    assert output.num_turns == 6
    stops = {tuple(asked["sampling_params"].get("stop", ())) for asked in server.asked}
    assert stops == {tool_format(form).stop}


@pytest.mark.parametrize("passage", INJECTIONS[::4])
def test_a_hostile_passage_changes_neither_turns_nor_mask_nor_score(
    tokenizer: Any, passage: str
) -> None:
    text = passage.replace("\ud800", "?")
    hostile = CountingRetriever([Passage(doc_id="d1", title=text[:50], text=f"Ada {text}")])
    server = ScriptedIds(tokenizer, script("hermes", answer("wrong")))
    with serving(create_app(hostile, qrels={})) as url:
        config = config_of(url, tool_format="hermes")
        [output] = play(server, config)
    assert sum(output.response_mask) == sum(len(drawn) for _, drawn in server.drawn)
    frame = tokenizer.decode(output.response_ids)
    assert frame.count("<|im_start|>") == 2  # the message with the results, and the new turn
    assert len(server.drawn) == 2
    score = scored(config, output, some_questions(1)[0])
    assert (score["score"], score["em"], score["valid_form"]) == (0.2, 0.0, 1.0)


def scored(config: Any, output: AgentLoopOutput, question: Question) -> dict[str, float]:
    """What the reward manager says, of the data as verl hands them over."""
    row = row_of(question)
    columns = {
        "tool_extra_fields": np.array([output.extra_fields], dtype=object),
        "reward_model": np.array([row["reward_model"]]),
        "extra_info": np.array([row["extra_info"]]),
    }
    manager = AgentRewardManager(config, None, None)  # pyright: ignore[reportArgumentType]
    data = DataProto(batch=TensorDict({}, batch_size=1), non_tensor_batch=columns)
    made = asyncio.run(manager.run_single(data))
    extra = made["reward_extra_info"]
    assert isinstance(extra, dict)
    assert made["reward_score"] == extra["score"]
    return extra


def test_the_reward_is_that_of_the_episode(tokenizer: Any, url: str) -> None:
    right, wrong = script("plain", answer("Ada Lovelace")), script("plain", answer("tea"))
    [question] = some_questions(1)
    found = []
    for texts in (right, wrong, [answer("Ada Lovelace")], ["nothing"] * 4):
        config = config_of(url, reward={"retrieval_bonus": 0.5})
        [output] = play(ScriptedIds(tokenizer, texts), config)
        found.append(scored(config, output, question))
    assert [f["score"] for f in found] == [1.0, 0.7, 1.0, 0.0]
    assert [f["em"] for f in found] == [1.0, 0.0, 1.0, 0.0]
    assert [f["num_queries"] for f in found] == [2, 2, 0, 0]
    assert [f["faults"] for f in found] == [0, 0, 0, 3]
    assert [f["gold_recall"] for f in found] == [1, 1, 0, 0]
    assert all(isinstance(value, float) for f in found for value in f.values())
    output.extra_fields.pop(EPISODE)
    with pytest.raises(ConfigError, match="agent_name"):
        scored(config, output, question)


def test_calls_that_come_together_share_a_request(
    tokenizer: Any, url: str, retriever: CountingRetriever
) -> None:
    texts = script("plain", answer("Ada"))
    play(ScriptedIds(tokenizer, texts), config_of(url), some_questions(8))
    assert [retriever.queries.count(q) for q in ("Ada program", "engine")] == [1, 1]


def test_a_dead_server_raises(tokenizer: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(RetrieverError, match=dead):
        play(ScriptedIds(tokenizer, script("plain", answer("x"))), config_of(dead))


def test_an_episode_that_fills_its_room_ends_without_an_answer(tokenizer: Any, url: str) -> None:
    texts = script("plain", answer("Ada Lovelace"))
    first = len(tokenizer.encode(texts[0])) + 1
    server = ScriptedIds(tokenizer, texts)
    [output] = play(server, config_of(url, response=first + 5))
    episode = episode_of(output)
    assert (episode.status, episode.ended_by, episode.num_turns) == ("no_answer", "tokens", 1)
    assert output.response_mask == [1] * first  # the results behind it are left off
    assert len(output.response_ids) == len(output.response_logprobs or ()) == first
    [cut] = play(ScriptedIds(tokenizer, texts), config_of(url, response=7))
    assert (len(cut.response_ids), episode_of(cut).counts) == (7, {"no_action": 1})
    limited = ScriptedIds(tokenizer, [answer("Ada " * 50)] * 2)
    play(limited, config_of(url, max_turn_tokens=9, max_turns=2))
    assert {len(drawn) for _, drawn in limited.drawn} == {9}


def test_what_cannot_be_trained_on_is_a_sentence(tokenizer: Any, url: str) -> None:
    server = ScriptedIds(tokenizer, [answer("Ada")])
    with pytest.raises(ConfigError, match=r"data\.max_prompt_length is 20"):
        play(server, config_of(url, prompt=20))
    inline = {"strategy": "search_r1", "tool_format": "search_r1"}
    with pytest.raises(ConfigError, match=r"rollout\.name=hf_cpu"):
        play(server, config_of(url, rollout="hf_cpu", **inline))
    nameless = Question(
        qid="", dataset="d", question="who?", answers=("a",), type="", split="train"
    )
    with pytest.raises(DataError, match=r"extra_info\.query_id"):
        play(server, config_of(url), [nameless])
    silent = ScriptedIds(tokenizer, [""])
    silent.say = lambda *_: []  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(EngineError, match="no token"):
        play(silent, config_of(url))
