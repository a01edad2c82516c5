"""Rows of training files: the forms that are read, and the first bad one by its number."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convsearch.errors import ConfigError, DataError
from convsearch.train.preflight.chats import (
    PROMPT_FORM,
    SFT_FORM,
    check_target,
    prompt_chat,
    sft_chat,
)
from convsearch.train.preflight.prepared import (
    TrainingRows,
    as_pattern,
    check_name,
    read_rows,
    write_rows,
)

ASKED = {"role": "user", "content": "Q: where?"}
SAID = {"role": "assistant", "content": "<think>t</think>\n<rewrite>r</rewrite>"}
CHAT = [ASKED, SAID]
SHAREGPT = [{"from": "human", "value": "Q: where?"}, {"from": "gpt", "value": SAID["content"]}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"messages": json.dumps(CHAT)},
        {"messages": SHAREGPT},
        {"messages": [ASKED, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
        {"conversations": SHAREGPT},
        {"conversations": json.dumps(SHAREGPT)},
        {"prompt": "Q: where?", "response": SAID["content"]},
        {"prompt": [ASKED], "completion": SAID["content"]},
        {"question": "Q: where?", "answer": SAID["content"]},
        {"instruction": "Q: where?", "input": "", "output": SAID["content"]},
        {"extra_info": {"question": "Q: where?", "answer": SAID["content"]}},
        {  # a row of the original's preprocessing
            "data_source": "topiocqa",
            "prompt": [ASKED],
            "reward_model": {"style": "rule", "ground_truth": "x"},
            "extra_info": {"index": 0, "question": "Q: where?", "answer": SAID["content"]},
        },
    ],
)
def test_the_forms_that_other_programs_write_are_read(row: dict[str, object]) -> None:
    chat = sft_chat(row)
    assert [m["role"] for m in chat] == ["user", "assistant"]
    assert chat[0]["content"] == "Q: where?"
    assert chat[1]["content"] in (SAID["content"], "a")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": None}, '"messages" is null'),
        ({"messages": []}, "empty list"),
        ({"messages": "no json"}, "no JSON of a list"),
        ({"messages": "[" * 100_000}, "no JSON of a list"),
        ({"messages": '{"role": "user"}'}, "no list of messages"),
        ({"messages": [ASKED]}, "no message of the assistant"),
        ({"messages": [ASKED, {"role": "assistant", "content": "  "}]}, "message is empty"),
        ({"messages": [ASKED, {"role": "assistant", "content": None}]}, r"messages\[1\] has no te"),
        ({"messages": [None, SAID]}, r"messages\[0\] is no message"),
        ({"messages": [{"role": "narrator", "content": "x"}, SAID]}, "role 'narrator'"),
        ({"messages": ["hello", "world"]}, "is no message"),
        ({"text": "x"}, "no messages in it"),
        ({"prompt": "x", "response": None}, "no messages in it"),
        (
            {"prompt": [ASKED], "reward_model": {}, "extra_info": {"question": "q", "answer": ""}},
            "a prompt for convsearch grpo",
        ),
    ],
)
def test_rows_with_nothing_to_learn_are_refused(row: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sft_chat(row)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(path: Path) -> TrainingRows:
    return read_rows(path, "messages", sft_chat, SFT_FORM)


def test_the_first_bad_row_is_named_with_file_and_form(tmp_path: Path) -> None:
    rows = [{"messages": json.dumps(CHAT)}, {"messages": "[]"}, {"messages": None}]
    path = write(tmp_path / "sft.parquet", [*rows])
    with pytest.raises(DataError) as error:
        read(path)
    said = str(error.value)
    assert said.startswith(f'{path}: row 2: "messages" is an empty list (2 of 3 rows)')
    assert SFT_FORM in said


def test_a_file_that_is_right_is_used_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "sft.parquet", [{"messages": CHAT, "extra_info": {"index": 0}}])
    rows = read(path)
    assert write_rows(rows, rows.chats, tmp_path / "out" / "x.parquet") == path
    assert not (tmp_path / "out").exists()


def test_what_was_read_from_another_form_is_written_beside_the_run(tmp_path: Path) -> None:
    source = [{"conversations": SHAREGPT, "id": i} for i in range(3)]
    rows = read(write(tmp_path / "sft.parquet", [*source]))
    target = write_rows(rows, [rows.chats[0], None, rows.chats[2]], tmp_path / "o" / "x.parquet")
    made = pq.read_table(target).to_pylist()
    assert [row["id"] for row in made] == [0, 2]
    assert [row["messages"] for row in made] == [CHAT, CHAT]
    assert [f.name for f in (tmp_path / "o").iterdir()] == ["x.parquet"]


def grpo_row(**more: object) -> dict[str, object]:
    base = {"prompt": [ASKED], "reward_model": {"ground_truth": ["p1"]}, "extra_info": {}}
    return {**base, **more}


def test_prompts_are_looked_at_too(tmp_path: Path) -> None:
    assert prompt_chat({"prompt": "Q: where?"}) == [ASKED]
    assert prompt_chat({"prompt": "[1] where?"})[0]["content"] == "[1] where?"
    assert prompt_chat({"prompt": json.dumps([ASKED])}) == [ASKED]
    check_target(grpo_row())
    check_target(grpo_row(reward_model={"ground_truth": None}, extra_info={"query_id": "q1"}))
    for row, said in [
        (grpo_row(prompt=[]), "empty list"),
        (grpo_row(prompt=None), "null"),
        (grpo_row(prompt=CHAT), "does not end in a message of the user"),
        (grpo_row(prompt=[{"role": "user", "content": ""}]), "does not end"),
        (grpo_row(reward_model=None), "ground_truth"),
        (grpo_row(reward_model={"ground_truth": []}), "query_id"),
        (grpo_row(extra_info=None, reward_model={"ground_truth": ""}), "query_id"),
        (grpo_row(agent_name="search_agent"), "expand_search"),
    ]:
        with pytest.raises(ValueError, match=said):
            (prompt_chat if "prompt" in said or row["prompt"] != [ASKED] else check_target)(row)
    path = write(tmp_path / "grpo.parquet", [{"prompt": "x", "reward_model": "a"}])
    with pytest.raises(DataError, match=r"grpo\.parquet: row 1: "):
        read_rows(path, "prompt", prompt_chat, PROMPT_FORM, check=check_target)


@pytest.mark.parametrize("name", ["a[1]", "b*", "c?", "d[", "e{1}", "f g"])
def test_the_loader_of_prompts_finds_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "t.parquet"
    path.parent.mkdir()
    path.touch()
    check_name(path)
    pattern = as_pattern(path).relative_to(tmp_path)
    assert list(tmp_path.glob(str(pattern))) == [path]


def test_a_name_that_no_escape_helps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="::"):
        check_name(tmp_path / "a::b" / "t.parquet")
