"""What is known of prompts: that they begin with the ids before them, or not, or nothing."""

from dataclasses import replace

import pytest
from agent_case import PASSAGES, ScriptedChat, answer, call, some_questions

from convsearch.agent import fail, start, strategy, to_episode, tool_format
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.agent.track import TokenTrack
from convsearch.episodes import runner
from convsearch.episodes.dialogue import Dialogue
from convsearch.infer import SamplingParams
from convsearch.retrieval.memory import InMemoryRetriever

RUN = runner.AgentRun(
    strategy=strategy("expand_search"), form=tool_format("plain"), params=SamplingParams()
)


def test_a_prompt_that_forgot_ids_is_counted_in_its_episode():
    state = start("q0", "who?", strategy("expand_search"), tool_format("plain"))
    assert to_episode(fail(state, "x")).counts == {}
    track = TokenTrack().sampled([1, 2]).extend_to([1, 3]).extend_to([7])
    dialogue = Dialogue(state=fail(state, "x"), seed=0, track=track)
    assert runner._episode(dialogue, RUN).counts == {"prefix_violations": 2}


def test_an_endpoint_that_tells_ids_is_compared_with_what_came_before():
    told = [((1, 2), (3, 4)), ((1, 2, 3, 4, 5), (6,)), ((1, 2, 9, 5, 6), (7,))]

    class Endpoint(ScriptedChat):
        def generate(self, chats, params, seeds):
            made = super().generate(chats, params, seeds)
            prompt, own = told[len(self.batches) - 1]
            return [replace(g, prompt_ids=prompt, ids=own) for g in made]

    engine = Endpoint(lambda _, turn: answer("x") if turn == 2 else call("plain", f"Ada {turn}"))
    tool = SearchTool(InMemoryRetriever(PASSAGES), SearchSettings())
    [dialogue] = runner.play_block(some_questions(1), engine, tool, RUN)
    assert dialogue.track.ids == (1, 2, 9, 5, 6, 7)
    assert dialogue.track.mask == (False,) * 5 + (True,)
    assert runner._episode(dialogue, RUN).counts == {"prefix_violations": 1}


@pytest.mark.parametrize(
    ("prompts", "counts"),
    [
        ([(10, 5)], {}),
        ([(10, 5), (15, 2), (17, 1)], {"prefix_unknown": 2}),
        ([(10, 5), (14, 2), (30, 1)], {"prefix_violations": 1, "prefix_unknown": 1}),
        ([(0, 0), (0, 0)], {"prefix_unknown": 1}),
        ([(10, 5), (0, 0), (3, 1)], {"prefix_unknown": 2}),
    ],
)
def test_prompts_of_chats_are_unknown_or_proven_to_have_forgotten(
    prompts: list[tuple[int, int]], counts: dict[str, int]
):
    class Endpoint(ScriptedChat):
        def generate(self, chats, params, seeds):
            made = super().generate(chats, params, seeds)
            prompt, own = prompts[len(self.batches) - 1]
            return [replace(g, prompt_tokens=prompt, num_tokens=own) for g in made]

    last = len(prompts) - 1
    engine = Endpoint(lambda _, turn: answer("x") if turn == last else call("plain", f"Ada {turn}"))
    tool = SearchTool(InMemoryRetriever(PASSAGES), SearchSettings())
    [episode] = runner.run_block(some_questions(1), engine, tool, RUN)
    assert (episode.num_turns, episode.counts) == (len(prompts), counts)
