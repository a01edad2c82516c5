"""The training files load in the pinned verl: its own data sets read what we write."""

import dataclasses
from pathlib import Path

import mini_case
import pytest
from omegaconf import OmegaConf
from tiny_model import make_tiny_model
from transformers import AutoTokenizer, PreTrainedTokenizer

from convsearch.data.mini import MiniData
from convsearch.data.parquet import write_grpo_parquet, write_sft_parquet
from convsearch.errors import DataError
from convsearch.prompts.rewrite import (
    TRAINED_STYLES,
    PromptStyle,
    format_response,
    rewrite_messages,
)
from convsearch.types import Turn

NUM_TURNS = 7
LENGTHS = {"nano": 2048, "instruct": 4096}
"""Tokens; the tiny tokenizer knows few words, so prompts are long."""


@pytest.fixture(scope="module")
def data() -> MiniData:
    return mini_case.mini()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizer:
    return AutoTokenizer.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("style", TRAINED_STYLES)
def test_verl_trains_on_the_response_alone(
    tmp_path: Path, data: MiniData, tokenizer: PreTrainedTokenizer, style: PromptStyle
) -> None:
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    turns = data.turns[:NUM_TURNS]
    examples = [(t, format_response("copy", f"{t.question} {t.qid}")) for t in turns]
    path = tmp_path / "sft.parquet"
    write_sft_parquet(path, examples, style=style)
    config = OmegaConf.create({"max_length": LENGTHS[style], "pad_mode": "no_padding"})
    loaded = MultiTurnSFTDataset(str(path), tokenizer, config)
    assert len(loaded) == NUM_TURNS
    for i, (turn, response) in enumerate(examples):
        row = loaded[i]
        trained = tokenizer.decode(row["input_ids"][row["loss_mask"].bool()])
        assert trained == f"{response}<|im_end|>\n"
        seen = tokenizer.decode(row["input_ids"])
        assert all(m["content"] in seen for m in rewrite_messages(turn, style))


@pytest.mark.parametrize("style", TRAINED_STYLES)
def test_verl_rolls_out_from_the_prompt(
    tmp_path: Path, data: MiniData, tokenizer: PreTrainedTokenizer, style: PromptStyle
) -> None:
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    turns = data.turns[:NUM_TURNS]
    path = tmp_path / "grpo.parquet"
    write_grpo_parquet(path, turns, data.qrels, style=style, data_source="mini")
    config = OmegaConf.create(
        {
            "cache_dir": str(tmp_path / "cache"),
            "max_prompt_length": LENGTHS[style],
            "filter_overlong_prompts": True,
            "filter_overlong_prompts_workers": 1,
        }
    )
    loaded = RLHFDataset([str(path)], tokenizer, config)
    assert len(loaded) == NUM_TURNS
    rows = [loaded[i] for i in range(NUM_TURNS)]
    for index, (row, turn) in enumerate(zip(rows, turns, strict=True)):
        assert row["raw_prompt"] == rewrite_messages(turn, style)
        assert row["data_source"] == "mini"
        assert row["reward_model"]["ground_truth"] == list(data.qrels[turn.qid])
        assert row["extra_info"]["query_id"] == turn.qid
        assert row["index"] == index
    batch = collate_fn(rows)
    assert len(batch["extra_info"]) == NUM_TURNS


def test_in_recipes_too_a_long_prompt_loses_its_oldest_turns(
    tmp_path: Path, data: MiniData, tokenizer: PreTrainedTokenizer
) -> None:
    from verl.utils.dataset.rl_dataset import get_dataset_class

    turns = [turn for turn in data.turns if len(turn.history) >= 6][:NUM_TURNS]
    path = tmp_path / "grpo.parquet"
    write_grpo_parquet(path, turns, data.qrels, style="instruct", data_source="mini")

    def size(turn: Turn) -> int:
        chat = rewrite_messages(turn, "instruct")
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return len(tokenizer(str(text), add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]

    config = OmegaConf.create(
        {
            "custom_cls": {"path": "pkg://convsearch_verl.prompt_rows", "name": "PromptRows"},
            "max_prompt_length": max(map(size, turns)) - 1,
            "filter_overlong_prompts": False,
            "cache_dir": str(tmp_path / "cache"),
        }
    )
    rows = get_dataset_class(config)(str(path), tokenizer, config)
    assert len(rows) == len(turns)
    shorter = 0
    for i, turn in enumerate(turns):
        found = rows[i]["raw_prompt"]
        if found != rewrite_messages(turn, "instruct"):
            newer = dataclasses.replace(turn, history=turn.history[2:])
            assert found == rewrite_messages(newer, "instruct")
            shorter += 1
    assert shorter >= 1
    config.max_prompt_length = 20
    with pytest.raises(DataError, match=r"row 1: longer than data\.max_prompt_length=20"):
        get_dataset_class(config)(str(path), tokenizer, config)
