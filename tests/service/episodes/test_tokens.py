"""Agents on a real model: ids in, ids out, the mask on what was drawn, greedy runs repeat."""

from pathlib import Path

import pytest
from agent_case import INJECTIONS, PASSAGES, some_questions
from token_engine_case import (
    DIALOGUES,
    DRAWN,
    GREEDY,
    check_dialogues,
    check_room,
    check_stop,
    make_roomy_model,
)

from convsearch.agent import strategy, tool_format
from convsearch.agent.model_squeezer import ModelSqueezer, SqueezeBudget
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.agent.squeeze import SqueezeRequest
from convsearch.episodes import AgentRun, infer_episodes
from convsearch.episodes.dialogue import token_counter
from convsearch.episodes.squeezing import engine_squeezer
from convsearch.infer.transformers_engine import TransformersEngine
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return TransformersEngine(str(make_roomy_model(tmp_path_factory.mktemp("m") / "tiny")))


def a_tool() -> SearchTool:
    return SearchTool(InMemoryRetriever(PASSAGES), SearchSettings(topk=1))


@pytest.mark.parametrize(("form", "name"), DIALOGUES)
def test_ids_only_grow_and_only_drawn_ids_are_marked(engine, form: str, name: str):
    check_dialogues(engine, form, name, DRAWN)


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
    check_stop(engine)


def test_a_dialogue_that_outgrows_the_model_fails_alone(engine):
    check_room(engine)


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
