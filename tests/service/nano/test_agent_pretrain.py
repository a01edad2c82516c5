"""A small search agent of a few steps: a whole folder with which inference can play."""

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convsearch.agent import strategy, tool_format
from convsearch.agent.frames import ChatFrames
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.cli.main import app
from convsearch.episodes import AgentRun, run_block
from convsearch.infer import SamplingParams
from convsearch.infer.transformers_engine import TransformersEngine
from convsearch.nano.agent_pretrain import encode
from convsearch.nano.agent_teacher import Player, make_world
from convsearch.retrieval.memory import InMemoryRetriever

STEPS = 12


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agent") / "taught"
    done = CliRunner().invoke(
        app,
        [
            *("nano", "teach-agent", "--out", str(out), "--worlds", "1", "--episodes", "120"),
            *("--steps", str(STEPS), "--batch-size", "8"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "most likely" in done.output
    return out


def test_the_folder_is_whole_and_says_how_it_was_made(policy: Path) -> None:
    card = (policy / "README.md").read_text()
    assert "the seeds 1001 to 1001" in card
    assert not list(policy.parent.glob(".*.tmp"))
    again = CliRunner().invoke(app, ["nano", "teach-agent", "--out", str(policy)])
    assert again.exit_code != 0
    assert "exists already" in str(again.exception)


def test_what_is_taught_are_the_ids_that_inference_shows(policy: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(policy)
    world = make_world(1001)
    tool = SearchTool(InMemoryRetriever(world.passages), SearchSettings(topk=1))
    player = Player(tool, variants=3, rng=random.Random(0))
    chat = next(c for c in (player.play(x, searched=3) for x in world.lessons) if c is not None)
    ids, own = encode(chat, tokenizer)
    frames = ChatFrames(tokenizer, frozenset([tokenizer.eos_token_id]))
    shown = frames.chat_ids(chat[:1])
    for place, message in enumerate(chat[1:], 1):
        if message["role"] == "assistant":
            said = tokenizer.encode(message["content"], add_special_tokens=False)
            shown += [*said, tokenizer.eos_token_id]
        else:
            shown += frames.reply_ids(message["content"], shown)
        assert ids[: len(shown)] == shown, place
    written = tokenizer.decode([i for i, mine in zip(ids, own, strict=True) if mine])
    assert written.count("<think>") == len(chat) // 2
    assert "<results>" not in written


def test_it_plays_episodes(policy: Path) -> None:
    world = make_world(1001, "dev")
    engine = TransformersEngine(str(policy))
    tool = SearchTool(InMemoryRetriever(world.passages), SearchSettings(topk=1))
    run = AgentRun(
        strategy=strategy("expand_search", max_turns=3),
        form=tool_format("nano"),
        params=SamplingParams(temperature=1.0, max_tokens=24),
    )
    episodes = run_block([lesson.question for lesson in world.lessons[:4]], engine, tool, run)
    engine.close()
    assert [e.status for e in episodes] == [e.status for e in episodes if e.status != "failed"]
    assert all(e.num_turns >= 1 for e in episodes)
