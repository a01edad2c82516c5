"""What is refused before a model is loaded."""

import pytest
from rewriting import some_turns

from convsearch.errors import ConfigError
from convsearch.infer import Plan, SamplingParams
from convsearch.prompts import PromptTemplate
from convsearch.types import derive_seed


def plan(**values) -> Plan:
    settings = {"turns": some_turns(3), "style": "plain", "params": SamplingParams(), "seed": 4}
    return Plan(**{**settings, **values})


def test_several_candidates_at_temperature_0_are_refused():
    greedy = SamplingParams(temperature=0)
    with pytest.raises(ConfigError, match="2 candidates at temperature 0 are all the same"):
        plan(params=greedy, candidates=2)
    assert len(plan(params=greedy)) == 3


@pytest.mark.parametrize("values", [{"shots": 4}, {"style": "reasoning", "shots": 1}])
def test_prompts_that_do_not_exist_are_refused_at_once(values: dict):
    with pytest.raises(ConfigError, match="shots"):
        plan(**values)


def test_samples_are_numbered_by_turn_then_candidate():
    some = plan(candidates=2)
    keys = [("q0", 0), ("q0", 1), ("q1", 0), ("q1", 1), ("q2", 0), ("q2", 1)]
    assert list(some.sample_keys()) == keys
    block = some.block([1, 4])
    assert list(block.seeds) == [derive_seed(4, "q0", 1), derive_seed(4, "q2", 0)]
    assert list(block.chats) == [some.chat(0), some.chat(5)]


def test_the_prompts_decide_the_hash():
    template = PromptTemplate(text="{question}", where="here")
    hashes = {plan(**v).prompts_sha256() for v in ({}, {"shots": 1}, {"template": template})}
    assert len(hashes) == 3
