"""What an engine over ids must do, whichever it is: asserted of vLLM and of its surface."""

import json
from pathlib import Path

from agent_case import PASSAGES, some_questions
from tiny_model import make_tiny_model

from convsearch.agent import strategy, tool_format
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.episodes import AgentRun
from convsearch.episodes.dialogue import Dialogue
from convsearch.episodes.runner import play_block
from convsearch.infer import Engine, SamplingParams
from convsearch.infer.token_engine import TokenEngine
from convsearch.retrieval.memory import InMemoryRetriever

GREEDY = SamplingParams(temperature=0, max_tokens=12)
DRAWN = SamplingParams(temperature=1.0, max_tokens=12)
DIALOGUES = [("plain", "rag"), ("hermes", "expand_search"), ("search_r1", "search_r1")]


def make_roomy_model(folder: Path, taught_steps: int = 0) -> Path:
    """A tiny model with room for an agent's prompt, which is long for so few merges."""
    model = make_tiny_model(folder, taught_steps=taught_steps)
    config = json.loads((model / "config.json").read_text())
    config["max_position_embeddings"] = 4096
    (model / "config.json").write_text(json.dumps(config))
    return model


def dialogues_of(
    engine: Engine, form: str, name: str, params: SamplingParams = GREEDY
) -> list[Dialogue]:
    """Two questions played to their end."""
    run = AgentRun(
        strategy=strategy(name, max_turns=3, max_faults=3),
        form=tool_format(form),
        params=params,
        batch_size=2,
    )
    tool = SearchTool(InMemoryRetriever(PASSAGES), SearchSettings(topk=1))
    return play_block(some_questions(2), engine, tool, run)


def check_dialogues(
    engine: Engine, form: str, name: str, params: SamplingParams = GREEDY
) -> list[Dialogue]:
    """Every prompt is all ids before it and more; only ids that were drawn are marked."""
    assert isinstance(engine, TokenEngine)
    drawn: dict[tuple[int, ...], list[int]] = {}
    generate = engine.generate_ids

    def recorded(prompts, sampling, seeds, stop=()):
        made = generate(prompts, sampling, seeds, stop)
        for prompt, generation in zip(prompts, made, strict=True):
            drawn[tuple(prompt)] = list(generation.ids)
        return made

    engine.generate_ids = recorded
    try:
        dialogues = dialogues_of(engine, form, name, params)
    finally:
        del engine.generate_ids
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
    return dialogues


def check_stop(engine: TokenEngine) -> None:
    """A continuation ends with the token that completes a stop string, and shows the string."""
    prompt = engine.chat_ids([{"role": "user", "content": "amber"}])
    long = SamplingParams(temperature=1.0, max_tokens=200)
    [free] = engine.generate_ids([prompt], long, [7])
    stop = free.text[5:7]
    [cut] = engine.generate_ids([prompt], long, [7], [stop])
    assert free.ids[: len(cut.ids)] == cut.ids
    assert len(cut.ids) < len(free.ids)
    assert stop in cut.text


def check_room(engine: TokenEngine) -> None:
    """A dialogue that outgrows the model fails alone."""
    short = engine.chat_ids([{"role": "user", "content": "amber"}])
    made = engine.generate_ids([[5] * 5000, short], GREEDY, [1, 2])
    assert "5000 tokens" in (made[0].error or "")
    assert made[1].error is None
    assert made[1].ids
