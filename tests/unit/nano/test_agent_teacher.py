"""The rule-based player teaches right episodes alone, in worlds that share no name with ours."""

import itertools
import random

import pytest

from convsearch.agent import strategy, tool_format
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.data.mini.draw import Draw
from convsearch.data.mini.generate import DEFAULT_SEED
from convsearch.data.mini.world import make_entities
from convsearch.eval.answers import exact_match
from convsearch.nano.agent_pretrain import AgentTeaching
from convsearch.nano.agent_teacher import (
    Player,
    World,
    episodes_forever,
    keywords,
    make_world,
    wordings,
)
from convsearch.retrieval.memory import InMemoryRetriever

SEED = 1001


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(SEED)


@pytest.fixture(scope="module")
def tool(world: World) -> SearchTool:
    return SearchTool(InMemoryRetriever(world.passages), SearchSettings(topk=1))


def test_no_name_of_the_taught_worlds_is_asked_about() -> None:
    def names(seed: int) -> set[str]:
        return {entity.name for entity in make_entities(Draw(seed))}

    for seed in AgentTeaching().world_seeds:
        assert not names(DEFAULT_SEED) & names(seed)


def test_every_step_is_a_fact_of_the_question(world: World) -> None:
    assert len(world.lessons) > 900
    for lesson in world.lessons:
        first, second = lesson.steps
        assert first.name in lesson.question.question
        if lesson.question.type == "bridge":
            assert (first.value, second.value) == (second.name, lesson.question.answers[0])
            assert first.name in first.phrase
            assert second.name in second.phrase
        else:
            earliest = min(lesson.steps, key=lambda need: int(need.value))
            assert earliest.name == lesson.question.answers[0]


def test_the_steps_of_one_split_are_those_of_its_questions(world: World) -> None:
    train = make_world(SEED, "train").lessons
    assert {lesson.question.split for lesson in train} == {"train"}
    assert len(train) < len(world.lessons)


@pytest.mark.parametrize("searched", [1, 3])
def test_a_kept_episode_reads_before_it_answers_rightly(
    world: World, tool: SearchTool, searched: int
) -> None:
    form = tool_format("nano")
    rules = strategy("expand_search", num_variants=searched, max_turns=3)
    player = Player(tool, variants=3, rng=random.Random(0))
    kept = 0
    for lesson in world.lessons[:60]:
        chat = player.play(lesson, searched=searched)
        if chat is None:
            continue
        kept += 1
        turns = [form.parse(m["content"]) for m in chat if m["role"] == "assistant"]
        assert all(turn.well_formed for turn in turns)
        assert exact_match(turns[-1].answer, lesson.question.answers) == 1.0
        assert 2 <= len(turns) <= rules.budget.max_turns
        assert all(len(turn.queries) == 3 for turn in turns[:-1])
        read = " ".join(m["content"].lower() for m in chat if "<results>" in m["content"])
        assert all(need.value.lower() in read for need in lesson.steps)
    assert 10 < kept < 60


def test_a_comparison_thinks_the_name_after_the_earlier_year(
    world: World, tool: SearchTool
) -> None:
    player = Player(tool, variants=3, rng=random.Random(0))
    asked = [x for x in world.lessons if x.question.type == "comparison"][:20]
    thoughts = 0
    for lesson in asked:
        chat = player.play(lesson, searched=3)
        if chat is None:
            continue
        last = chat[-1]["content"].partition("</think>")[0]
        answer = lesson.question.answers[0].lower()
        year = str(min(int(need.value) for need in lesson.steps))
        assert last.endswith(f"{year} {answer}")
        assert last.count(f"{year} {answer}") == 2
        thoughts += 1
    assert thoughts > 10


def test_comparisons_are_a_quarter_of_what_is_played(world: World, tool: SearchTool) -> None:
    played = itertools.islice(
        episodes_forever([world], [tool], variants=3, rng=random.Random(0)), 120
    )
    compared = sum(", " in chat[0]["content"] for chat in played)
    assert 15 <= compared <= 45


def test_wordings_differ_and_name_the_thing(world: World) -> None:
    rng = random.Random(0)
    for lesson in world.lessons[:40]:
        need = lesson.steps[0]
        said = wordings(need, 3, rng)
        assert len(set(said)) == 3
        assert all(need.name.lower() in query for query in said)


def test_keywords_are_words_of_the_aspect() -> None:
    assert keywords("rival")[0] == "feud"
    assert "the" not in keywords("leader")
