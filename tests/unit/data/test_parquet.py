"""Rows and columns of the training files, as pyarrow reads them back."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from convsearch.data.parquet import write_grpo_parquet, write_sft_parquet
from convsearch.errors import DataError, DependencyError
from convsearch.prompts.rewrite import (
    TRAINED_STYLES,
    PromptStyle,
    format_response,
    rewrite_messages,
)
from convsearch.types import Message, Turn

HISTORY = (Message(role="user", text="who is Ada?"), Message(role="agent", text="A writer."))
FIRST = Turn(qid="a_1", conv_id="a", turn=1, split="train", question="who is Ada?")
SECOND = Turn(
    qid="a_2", conv_id="a", turn=2, split="train", question="when was she born?", history=HISTORY
)
QRELS = {"a_1": {"d1": 1}, "a_2": {"d2": 1, "d3": 2, "d4": 0}}


@pytest.mark.parametrize("style", TRAINED_STYLES)
def test_sft_rows_are_the_prompt_and_the_response(tmp_path: Path, style: PromptStyle) -> None:
    response = format_response("she", "Ada born when")
    path = tmp_path / "deep" / "sft.parquet"
    assert write_sft_parquet(path, [(FIRST, "r"), (SECOND, response)], style=style) == 2
    rows = pq.read_table(path).to_pylist()
    assert rows[1]["messages"] == [
        *rewrite_messages(SECOND, style),
        {"role": "assistant", "content": response},
    ]
    assert rows[1]["extra_info"] == {"split": "train", "index": 1, "query_id": "a_2"}


@pytest.mark.parametrize("style", TRAINED_STYLES)
def test_grpo_rows_carry_gold_ids_and_no_answer(tmp_path: Path, style: PromptStyle) -> None:
    path = tmp_path / "grpo.parquet"
    assert write_grpo_parquet(path, [FIRST, SECOND], QRELS, style=style, data_source="toy") == 2
    rows = pq.read_table(path).to_pylist()
    assert rows[1] == {
        "data_source": "toy",
        "prompt": rewrite_messages(SECOND, style),
        "ability": "query_rewriting",
        "reward_model": {"style": "rule", "ground_truth": ["d2", "d3"]},
        "extra_info": {
            "split": "train",
            "index": 1,
            "answer": "",
            "question": "when was she born?",
            "query_id": "a_2",
        },
    }


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sft\.parquet: no examples to write"):
        write_sft_parquet(tmp_path / "sft.parquet", [], style="nano")
    with pytest.raises(DataError, match=r"g\.parquet: no turns to write"):
        write_grpo_parquet(tmp_path / "g.parquet", [], QRELS, style="nano", data_source="toy")


@pytest.mark.parametrize(
    ("qrels", "sentence"),
    [({}, "qid 'a_1' has no line in the qrels"), ({"a_1": {"d": 0}}, "has no relevant passage")],
)
def test_a_turn_without_gold_is_named_and_nothing_is_written(
    tmp_path: Path, qrels: dict[str, dict[str, int]], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        write_grpo_parquet(tmp_path / "g.parquet", [FIRST], qrels, style="nano", data_source="t")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_pyarrow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install -e '\.\[train\]'"):
        write_sft_parquet(tmp_path / "sft.parquet", [(FIRST, "r")], style="nano")
