"""The plugin inside verl: its reward manager, its sampler, its engine and its rollout's checks."""

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import verl.utils.torch_functional as verl_functional
from convsearch_verl import platform_cpu
from convsearch_verl.batch_loop import _reward_input, _Task
from convsearch_verl.engine_cpu import SharedPrefixEngine
from convsearch_verl.hf_cpu import check_sampling
from convsearch_verl.replay import group_metrics, grouped_order, strict_replay_buffer
from convsearch_verl.reward_manager import RewriteRewardManager
from convsearch_verl.rewrite_score import compute_score, malformed_score, rank_score
from live_server import serving
from omegaconf import OmegaConf
from tensordict import TensorDict
from tiny_model import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl import DataProto
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils import tensordict_utils as tu
from verl.workers.config import RolloutConfig
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from convsearch.errors import ConfigError, RetrieverError, StageError
from convsearch.prompts.rewrite import format_response
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage
from retriever_server.app import create_app

NUM_PASSAGES = 8


class CountingRetriever(InMemoryRetriever):
    """Remembers the queries of each call."""

    def __init__(self) -> None:
        # passage i holds the word i times more often than the next: word i ranks it by itself
        super().__init__(
            [
                Passage(doc_id=f"p{i}", title="", text=" ".join(["amber"] * (i + 1) + ["castle"]))
                for i in range(NUM_PASSAGES)
            ]
            + [Passage(doc_id="gold", title="", text="amber amber river")]
        )
        self.calls: list[list[str]] = []

    def ranks(
        self, queries: Sequence[str], golds: Sequence[Sequence[str]], topk: int
    ) -> list[int | None]:
        self.calls.append(list(queries))
        return super().ranks(queries, golds, topk)


@pytest.fixture
def retriever() -> CountingRetriever:
    return CountingRetriever()


@pytest.fixture
def url(retriever: CountingRetriever) -> Iterator[str]:
    with serving(create_app(retriever, qrels={"q": {"gold": 1}})) as address:
        yield address


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def manager(tiny: Path, url: str | None, **retriever: object) -> RewriteRewardManager:
    config = {
        "retriever": {"url": url, "topk": 100, **retriever},
        "reward": {"custom_reward_function": {"path": None, "name": "compute_score"}},
    }
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    return RewriteRewardManager(OmegaConf.create(config), tokenizer, None)


def rollout(tokenizer: Any, response: str, **extra_info: object) -> DataProto:
    """One roll-out as verl hands it over: the end token included, padding behind it."""
    ids = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
    padded = [*ids, *[tokenizer.pad_token_id] * 3]
    prompt = [5, 6]
    mask = [1] * len(prompt) + [1] * len(ids) + [0] * 3
    batch = TensorDict(
        {
            "prompts": torch.tensor([prompt]),
            "responses": torch.tensor([padded]),
            "attention_mask": torch.tensor([mask]),
        },
        batch_size=1,
    )
    fields = {
        "data_source": np.array(["toy"], dtype=object),
        "reward_model": np.array([{"style": "rule", "ground_truth": ["p1"]}], dtype=object),
        "extra_info": np.array([extra_info], dtype=object),
    }
    return DataProto(batch=batch, non_tensor_batch=fields)


def scores(made: RewriteRewardManager, responses: list[str], **extra_info: object) -> list[dict]:
    async def run() -> list[dict]:
        data = [rollout(made.tokenizer, text, **extra_info) for text in responses]
        return await asyncio.gather(*(made.run_single(one) for one in data))

    return asyncio.run(run())


def numbers(told: dict[str, Any]) -> dict[str, float]:
    """Without the texts, which are for people."""
    return {name: value for name, value in told.items() if not isinstance(value, str)}


def test_one_query_id_eight_rewrites_eight_ranks(
    tiny: Path, url: str, retriever: CountingRetriever
) -> None:
    rewrites = ["river", "castle", "amber", "amber river", "castle river", "violin", "river amber"]
    responses = [format_response("x", text) for text in [*rewrites, "castle amber"]]
    found = scores(manager(tiny, url, batch_size=8), responses, query_id="q")
    alone = [compute_score("toy", r, [], {"query_id": "q"}, retriever_url=url) for r in responses]
    assert [numbers(f["reward_extra_info"]) for f in found] == alone
    told = [f["reward_extra_info"] for f in found]
    assert [t["query"] for t in told] == [*rewrites, "castle amber"]
    assert {(t["qid"], t["status"]) for t in told} == {("q", "ok")}
    ranks = [f["reward_extra_info"]["rank"] for f in found]
    assert ranks[0] == 1
    assert ranks[1] == ranks[5] == 0
    assert len(set(ranks)) >= 4
    assert len(retriever.calls[0]) == len(responses)


def test_a_batch_of_uneven_rollouts_reaches_the_manager_whole(tiny: Path, url: str) -> None:
    made = manager(tiny, url)
    rewrites = ["river", "amber castle amber castle", "castle"]
    ids = [[*made.tokenizer.encode(format_response("x", r)), 2] for r in rewrites]
    row = {"uid": "u", "reward_model": {"ground_truth": []}, "extra_info": {"query_id": "q"}}
    tasks = [_Task(row=row, session=i, prompt_ids=[5] * (i + 1)) for i in range(len(ids))]
    data = _reward_input(tasks, ids)

    async def run() -> list[dict]:
        return await asyncio.gather(*(made.run_single(data[i : i + 1]) for i in range(len(ids))))

    (one, *_) = found = [numbers(f["reward_extra_info"]) for f in asyncio.run(run())]
    assert found == [
        compute_score("toy", format_response("x", r), [], {"query_id": "q"}, retriever_url=url)
        for r in rewrites
    ]
    assert one["rank"] == 1


def test_a_malformed_response_costs_no_search(
    tiny: Path, url: str, retriever: CountingRetriever
) -> None:
    good = format_response("x", "amber river")
    bad = ["amber", good + " more", good + good, "<think>x</think>\n<rewrite> </rewrite>"]
    found = scores(manager(tiny, url), [*bad, good], query_id="q")
    assert [f["reward_score"] for f in found] == [-0.1] * len(bad) + [2.0]
    assert [q for call in retriever.calls for q in call] == ["amber river"]


def test_the_shape_of_the_reward_is_a_setting(tiny: Path, url: str) -> None:
    responses = [format_response("x", "amber"), "no tags"]
    piecewise, reciprocal = (
        scores(manager(tiny, url, **shape), responses, query_id="q")
        for shape in ({}, {"reward": "reciprocal"})
    )
    rank = piecewise[0]["reward_extra_info"]["rank"]
    assert rank > 1
    assert reciprocal[0]["reward_score"] == 1 / rank != piecewise[0]["reward_score"]
    assert reciprocal[1]["reward_score"] == piecewise[1]["reward_score"] == -0.1
    with pytest.raises(ConfigError, match="unknown reward 'linear'"):
        manager(tiny, url, reward="linear")


def test_a_response_without_tokens_is_malformed(
    tiny: Path, url: str, retriever: CountingRetriever
) -> None:
    made = manager(tiny, url)
    data = rollout(made.tokenizer, "", query_id="q")
    data.batch["attention_mask"][:, 2:] = 0  # not even the end token
    found = asyncio.run(made.run_single(data))
    assert found["reward_score"] == -0.1
    assert retriever.calls == []


def test_gold_ids_of_the_row_do_without_a_query_id(tiny: Path, url: str) -> None:
    (found,) = scores(manager(tiny, url), [format_response("x", "castle amber")])
    assert found["reward_extra_info"]["found"] == 1.0


def test_a_dead_server_is_an_error_for_every_rollout(tiny: Path, dead_url: str) -> None:
    made = manager(tiny, dead_url, attempts=1, timeout_s=5)

    async def run() -> list[object]:
        data = [rollout(made.tokenizer, format_response("x", "amber")) for _ in range(3)]
        return await asyncio.gather(*(made.run_single(d) for d in data), return_exceptions=True)

    errors = asyncio.run(run())
    assert [type(e) for e in errors] == [RetrieverError] * 3
    assert dead_url in str(errors[0])


def test_a_score_function_that_would_never_be_called_is_refused(tiny: Path) -> None:
    config = OmegaConf.create({"reward": {"custom_reward_function": {"path": "mine.py"}}})
    with pytest.raises(ConfigError, match=r"mine\.py"):
        RewriteRewardManager(config, AutoTokenizer.from_pretrained(tiny), lambda **_: 0.0)


def test_without_a_server_the_manager_says_so(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="RETRIEVER_URL"):
        manager(tiny, None)


def sampler_arguments(url: str | None, *, enable: bool = False) -> dict[str, Any]:
    return {
        "trainer_mode": "sync",
        "trainer_config": {},
        "max_off_policy_threshold": 8,
        "max_off_policy_strategy": "drop",
        "refill_fn": lambda count: count,
        "sampler_kwargs": {
            "poll_interval_s": 0.1,
            "reward_manager": "rewrite_r1",
            "retriever": {"url": url, "timeout_s": 1.0},
            "filter_groups": {"enable": enable, "metric": "reward", "max_inflight_gen_batches": 2},
            "train_batch_size": 4,
            "gen_batch_size": None,
            "mini_batch": 4,
        },
    }


def test_a_failed_rollout_stops_the_run(url: str) -> None:
    buffer = strict_replay_buffer(**sampler_arguments(url))
    assert buffer.poll_interval == 0.1
    buffer._terminal_eviction_reasons(3, "train")
    buffer.failure_keys["train"] = {"a", "b"}
    with pytest.raises(StageError, match=r"step 3: 2 prompt\(s\)"):
        buffer._terminal_eviction_reasons(3, "train")


def test_the_sampler_takes_verls_group_filter(url: str) -> None:
    buffer = strict_replay_buffer(**sampler_arguments(url, enable=True))
    assert (buffer.filter_groups_metric, buffer.max_inflight_gen_batches) == ("reward", 2)
    assert strict_replay_buffer(**sampler_arguments(url)).filter_groups_metric is None


def filtered(url: str, groups: dict[str, float | None]) -> ReplayBuffer:
    """A sampler of steps of 4 prompts for which these groups are done: name -> the reward that all
    its samples have, None where they differ."""
    buffer = strict_replay_buffer(**sampler_arguments(url, enable=True))
    buffer.prompt_global_steps["train"] = dict.fromkeys(groups, 3)
    buffer.finished_keys["train"] = set(groups)
    buffer._dapo_classification_cache["train"] = dict(groups)
    return buffer


def test_groups_of_equal_rewards_are_replaced(url: str) -> None:
    buffer = filtered(url, {"a": None, "b": 0.0, "c": None, "d": 2.0})
    _, flat, _, values = buffer._terminal_eviction_reasons(3, "train")
    assert flat == {"b", "d"}
    assert values == {0.0: 1, 2.0: 1}


def test_no_more_than_twice_a_step_is_replaced_and_what_stays_comes_last(url: str) -> None:
    buffer = filtered(url, {"a": 2.0, "b": 2.0, "c": None, "d": 0.0, "e": None, "f": None})
    buffer.replaced = {f"{uid}_{i}_0": {"score": 2.0} for uid in "tuvwxyz" for i in range(2)}
    reasons = buffer._terminal_eviction_reasons(3, "train")
    assert reasons[1] == {"a"}, "seven of eight were replaced already"
    ready = buffer._sampleable_terminal_keys("train", reasons)
    assert buffer._select_prompt_uids("train", ready, 4)[0] == ["c", "e", "f", "b"]


def test_which_groups_are_taken_does_not_depend_on_the_order_of_a_set(url: str) -> None:
    names = [f"{i:x}" for i in range(40)]
    buffer = filtered(url, dict.fromkeys(names))
    reasons = buffer._terminal_eviction_reasons(3, "train")
    ready = buffer._sampleable_terminal_keys("train", reasons)
    assert buffer._select_prompt_uids("train", ready, 24)[0] == names[:24]


def test_no_server_ends_the_run_before_it_starts(dead_url: str) -> None:
    with pytest.raises(ConfigError, match="RETRIEVER_URL"):
        strict_replay_buffer(**sampler_arguments(None))
    with pytest.raises(RetrieverError, match=dead_url):
        strict_replay_buffer(**sampler_arguments(dead_url))


def test_metrics_of_groups() -> None:
    values = group_metrics(
        ["a", "b", "a", "b"],
        [rank_score(1), malformed_score(), rank_score(10), malformed_score()],
    )
    assert values == pytest.approx(
        {
            "rewrite/drawn_groups": 2,
            "rewrite/flat_groups": 0.5,
            "rewrite/reward_std_in_group": 0.25,
            "rewrite/malformed": 0.5,
            "rewrite/found": 0.5,
            "rewrite/reciprocal_rank": (1 + 0.1) / 4,
        }
    )


def test_groups_stay_together_sorted_within_one_update() -> None:
    uids = ["a", "b", "a", "c", "d", "b", "c", "d"]
    lengths = [9, 5, 9, 7, 3, 5, 7, 3]
    assert grouped_order(uids, lengths, mini_batch=4) == [4, 7, 1, 5, 3, 6, 0, 2]
    assert grouped_order(uids, lengths, mini_batch=2) == [1, 5, 0, 2, 4, 7, 3, 6]


@pytest.mark.parametrize(
    "values",
    [{"top_p": 0.9}, {"top_k": 20}, {"tensor_model_parallel_size": 2}, {"free_cache_engine": True}],
)
def test_the_rollout_refuses_by_name_what_it_does_not_do(values: dict[str, Any]) -> None:
    given = {"free_cache_engine": False, "tensor_model_parallel_size": 1, **values}
    with pytest.raises(ConfigError, match=next(iter(values))):
        check_sampling(RolloutConfig(name="hf_cpu", **given))
    fine = {**given, **{name: default for name, default in FINE.items() if name in values}}
    check_sampling(RolloutConfig(name="hf_cpu", **fine))


FINE = {
    "top_p": 1.0,
    "top_k": -1,
    "tensor_model_parallel_size": 1,
    "free_cache_engine": False,
}


def test_the_platform_leaves_other_machines_alone() -> None:
    assert "VERL_PLATFORM" not in os.environ
    assert not platform_cpu.PlatformCpu().is_platform_available()
    platform_cpu.install()
    assert not hasattr(dist.init_process_group, platform_cpu._MARK)


SEQUENCES = [[5, 6, 7, 20, 21], [5, 6, 7, 22, 23, 24], [8, 9, 25]]
PROMPT_LENGTHS = [3, 3, 2]


def micro_batch(*, whole_mask: bool, temperature: float) -> TensorDict:
    def jagged(rows: list[list[int]]) -> torch.Tensor:
        return torch.nested.as_nested_tensor([torch.tensor(r) for r in rows], layout=torch.jagged)

    masks = [
        [0] * (length if whole_mask else 0) + [1] * (len(ids) - length)
        for ids, length in zip(SEQUENCES, PROMPT_LENGTHS, strict=True)
    ]
    tensors = {
        "input_ids": jagged(SEQUENCES),
        "position_ids": jagged([list(range(len(ids))) for ids in SEQUENCES]),
        "loss_mask": jagged(masks),
    }
    options = {
        "use_remove_padding": False,
        "use_fused_kernels": False,
        "calculate_entropy": True,
        "temperature": temperature,
        "pad_token_id": 0,
    }
    return tu.get_tensordict(tensor_dict=tensors, non_tensor_dict=options)


@pytest.mark.parametrize("whole_mask", [True, False], ids=["sft", "rl"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_engine_gives_verls_numbers(tiny: Path, whole_mask: bool, temperature: float) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        tiny, dtype=torch.float32, attn_implementation="sdpa"
    )
    engine: Any = object.__new__(SharedPrefixEngine)
    engine.pad_to_length = False
    engine.engine_config = SimpleNamespace(entropy_checkpointing=False)
    engine.compute_entropy_from_logits = verl_functional.entropy_from_logits

    def outputs(kind: type) -> dict[str, torch.Tensor]:
        data = micro_batch(whole_mask=whole_mask, temperature=temperature)
        inputs, rest = kind.prepare_model_inputs(engine, data)
        made = kind.prepare_model_outputs(
            engine, model(**inputs, use_cache=False), rest, data, None
        )
        return {name: responses(value) for name, value in made.items()}

    ours, verls = outputs(SharedPrefixEngine), outputs(FSDPEngineWithLMHead)
    assert set(ours) == {"log_probs", "entropy"}
    for name in ours:
        torch.testing.assert_close(ours[name], verls[name], rtol=0, atol=2e-5)


def responses(values: torch.Tensor) -> torch.Tensor:
    """What verl uses of a jagged output: from the last prompt token to the last but one."""
    rows = zip(values.unbind(), PROMPT_LENGTHS, strict=True)
    return torch.cat([row[length - 1 : -1] for row, length in rows])
