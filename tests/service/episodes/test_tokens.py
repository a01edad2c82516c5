"""Agents on a real model: ids in, ids out, the mask on what was drawn, greedy runs repeat."""

import json
from pathlib import Path

import pytest
from agent_case import INJECTIONS, PASSAGES, some_questions
from tiny_model import make_tiny_model

from convsearch.agent import strategy, tool_format
from convsearch.agent.model_squeezer import ModelSqueezer, SqueezeBudget
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.agent.squeeze import SqueezeRequest
from convsearch.episodes import AgentRun, infer_episodes
from convsearch.episodes.dialogue import token_counter
from convsearch.episodes.runner import play_block
from convsearch.episodes.squeezing import engine_squeezer
from convsearch.infer import SamplingParams
from convsearch.infer.token_engine import TokenEngine
from convsearch.infer.transformers_engine import TransformersEngine
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage

GREEDY = SamplingParams(temperature=0, max_tokens=12)
DRAWN = SamplingParams(temperature=1.0, max_tokens=12)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    folder = make_tiny_model(tmp_path_factory.mktemp("m") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 4096  # an agent's prompt is long for so few merges
    (folder / "config.json").write_text(json.dumps(config))
    return TransformersEngine(str(folder))


def a_tool() -> SearchTool:
    return SearchTool(InMemoryRetriever(PASSAGES), SearchSettings(topk=1))


def a_run(form: str, name: str, params: SamplingParams = DRAWN) -> AgentRun:
    chosen = strategy(name, max_turns=3, max_faults=3)
    return AgentRun(strategy=chosen, form=tool_format(form), params=params, batch_size=2)


@pytest.mark.parametrize(
    ("form", "name"),
    [("plain", "rag"), ("hermes", "expand_search"), ("search_r1", "search_r1")],
)
def test_ids_only_grow_and_only_drawn_ids_are_marked(engine, form: str, name: str, monkeypatch):
    assert isinstance(engine, TokenEngine)
    drawn: dict[tuple[int, ...], list[int]] = {}
    generate = engine.generate_ids

    def recorded(prompts, params, seeds, stop=()):
        made = generate(prompts, params, seeds, stop)
        for prompt, generation in zip(prompts, made, strict=True):
            drawn[tuple(prompt)] = list(generation.ids)
        return made

    monkeypatch.setattr(engine, "generate_ids", recorded)
    dialogues = play_block(some_questions(2), engine, a_tool(), a_run(form, name))
    for dialogue in dialogues:
        track = dialogue.track
        prompts = [p for p in drawn if track.ids[: len(p)] == p]
        assert len(prompts) == dialogue.state.num_turns > 1
        expected = [False] * len(track.ids)
        for prompt in prompts:
            ids = drawn[prompt]
            assert list(track.ids[len(prompt) : len(prompt) + len(ids)]) == ids
            expected[len(prompt) : len(prompt) + len(ids)] = [True] * len(ids)
        assert list(track.mask) == expected
        assert track.violations == 0


def test_replies_stand_where_the_chat_template_would_put_them(engine):
    chat = [
        {"role": "user", "content": "amber"},
        {"role": "assistant", "content": "birch"},
        {"role": "user", "content": "castle"},
    ]
    end = engine.reply_ids("<|im_end|>", None)
    assert len(end) > 1  # spelled out, not the token
    own = [*engine.chat_ids(chat[:1]), *engine.reply_ids("birch", None)]
    grown = [*own, *engine.reply_ids("castle", own)]
    assert grown == engine.chat_ids(chat)
    ended = [*own, *(i for i in engine._end_ids)]
    assert [*ended, *engine.reply_ids("castle", ended)] == grown


@pytest.mark.parametrize("passage", INJECTIONS)
def test_no_text_becomes_a_special_token(engine, passage: str):
    special = set(engine._tokenizer.all_special_ids)
    assert not special & set(engine.reply_ids(passage.replace("\ud800", "?"), None))


def test_generation_ends_after_a_stop_string(engine):
    prompt = engine.chat_ids([{"role": "user", "content": "amber"}])
    long = SamplingParams(temperature=1.0, max_tokens=200)
    [free] = engine.generate_ids([prompt], long, [7])
    stop = free.text[5:7]
    [cut] = engine.generate_ids([prompt], long, [7], [stop])
    assert free.ids[: len(cut.ids)] == cut.ids
    assert len(cut.ids) < len(free.ids)
    assert stop in cut.text
    assert stop not in engine._tokenizer.decode(cut.ids[:-1], skip_special_tokens=True)


def test_a_dialogue_that_outgrows_the_model_fails_alone(engine):
    short = engine.chat_ids([{"role": "user", "content": "amber"}])
    made = engine.generate_ids([[5] * 5000, short], GREEDY, [1, 2])
    assert "5000 tokens" in (made[0].error or "")
    assert made[1].error is None


def test_greedy_runs_repeat_and_resume_to_the_same_bytes(engine, tmp_path: Path):
    run = AgentRun(
        strategy=strategy("expand_search", max_turns=2),
        form=tool_format("plain"),
        params=GREEDY,
        batch_size=1,
    )
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        infer_episodes(some_questions(2), engine, a_tool(), run, out_path=path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    journal = tmp_path / "c.jsonl.journal"
    calls = 0
    generate = engine.generate_ids

    def dies(*args):
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        return generate(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "generate_ids", dies)
        with pytest.raises(KeyboardInterrupt):
            infer_episodes(some_questions(2), engine, a_tool(), run, out_path=tmp_path / "c.jsonl")
    assert journal.exists()
    infer_episodes(some_questions(2), engine, a_tool(), run, out_path=tmp_path / "c.jsonl")
    assert (tmp_path / "c.jsonl").read_bytes() == paths[0].read_bytes()


def test_a_model_in_this_process_squeezes(engine):
    squeezer = engine_squeezer(
        engine,
        name="hf:tiny",
        max_tokens=8,
        budget=SqueezeBudget(max_input_tokens=200),
        count_tokens=token_counter(engine),
    )
    request = SqueezeRequest(question="?", queries=("amber",), passages=tuple(PASSAGES))
    first, second = squeezer.squeeze([request, request], 8)
    assert first == second
    assert first is not None
    assert token_counter(engine)(first) <= 8
    assert squeezer.spent_tokens > 8
    huge = ModelSqueezer(
        squeezer._generate,
        name="hf:tiny",
        identity="tiny",
        budget=SqueezeBudget(max_input_tokens=9000),
        count_tokens=token_counter(engine),
    )
    long = Passage(doc_id="l", title="", text="amber " * 9000)
    too_long = SqueezeRequest(question="?", queries=("amber",), passages=(long,))
    assert huge.squeeze([too_long], 8) == [None]  # does not fit the model: a failure, and seen
