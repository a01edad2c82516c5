"""The node `search_agent` of the configuration."""

from dataclasses import asdict
from typing import Any

import pytest
from convsearch_verl.agent_settings import AgentSettings, agent_settings, check_rollout

from convsearch.errors import ConfigError


def test_values_are_taken_over() -> None:
    node = {"strategy": "search_r1", "tool_format": "search_r1", "max_documents": 3, "topk": 5}
    settings = agent_settings(
        {**node, "reward": {"retrieval_bonus": 1, "wrong_valid": 0, "metric": "f1"}}
    )
    assert settings.search().max_documents == 3
    assert settings.agent_strategy().budget.max_queries_per_call == 1
    assert (settings.reward.retrieval_bonus, settings.reward.metric) == (1, "f1")
    assert settings.reward.right_valid == 1.0


def test_the_defaults_pass_their_own_check() -> None:
    assert agent_settings(asdict(AgentSettings())) == agent_settings(None) == AgentSettings()


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"tpok": 3}, r"search_agent\.tpok"),
        ({"reward": {"rigth_valid": 1}}, r"search_agent\.reward\.rigth_valid"),
        ({"reward": 3}, r"search_agent\.reward"),
        ({"reward": {"metric": "bleu"}}, "bleu"),
        ({"reward": {"punish_searches": 1}}, "punish_searches"),
        ({"reward": {"right_valid": "1"}}, "right_valid"),
        ({"topk": 0}, "topk"),
        ({"topk": 2.5}, r"search_agent\.topk"),
        ({"topk": True}, r"search_agent\.topk"),
        ({"topk": None}, r"search_agent\.topk"),
        ({"max_documents": "all"}, r"search_agent\.max_documents"),
        ({"max_turn_tokens": 0}, "max_turn_tokens"),
        ({"max_turns": 0}, "max_turns"),
        ({"squeezer": "hf"}, r'not for training.*"vllm serve".*llm'),
        ({"squeezer": "llm"}, r"needs search_agent\.llm\.model"),
        ({"squeezer": "llm", "llm": {"model": "m"}}, r"search_agent\.llm\.url"),
        ({"squeezer": "extractive", "llm": {"url": "http://h"}}, "asks no endpoint"),
        ({"llm": {"modle": "m"}}, r"search_agent\.llm\.modle"),
        ({"llm": {"deadline_s": 0}}, r"llm\.deadline_s must be above 0"),
        ({"llm": {"concurrency": 0}}, r"llm\.concurrency must be above 0"),
        ({"llm": {"max_total_tokens": 0}}, "token budgets"),
        ({"llm": "m"}, r"search_agent\.llm must hold settings"),
        ({"strategy": "guess"}, "unknown strategy"),
        ({"tool_format": "xml"}, "unknown tool format"),
        ({"tool_format": "search_r1"}, "holds one query a call"),
        ({"strategy": "search_r1", "num_variants": 3}, "one query at a time"),
    ],
)
def test_a_wrong_setting_is_named(node: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        agent_settings(node)


def test_inline_forms_need_a_rollout_that_stops() -> None:
    inline = agent_settings({"strategy": "search_r1", "tool_format": "search_r1"})
    check_rollout(inline, "vllm")
    check_rollout(AgentSettings(), "hf_cpu")
    with pytest.raises(ConfigError, match=r"rollout\.name=vllm"):
        check_rollout(inline, "hf_cpu")
