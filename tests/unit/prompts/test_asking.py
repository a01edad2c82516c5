"""`convsearch.json`: what it holds, what it refuses, and that other words are noticed."""

import json
from pathlib import Path
from typing import get_args

import pytest

from convsearch.errors import DataError
from convsearch.pipeline.presets import NANO_POLICY
from convsearch.prompts import PromptStyle, conversation, plain
from convsearch.prompts.asking import (
    ASKING_FILE,
    as_record,
    asking_of,
    parse_asking,
    read_asking,
    template_sha256,
    write_asking,
)

GOOD = as_record(asking_of("nano", max_response_tokens=96, dataset="mini"))


def test_what_is_written_is_read(tmp_path: Path):
    asking = asking_of(
        "instruct",
        max_prompt_tokens=1536,
        max_response_tokens=1024,
        stage="grpo",
        dataset="topiocqa",
        engine="bm25",
        index="idx",
        index_fingerprint="abc",
    )
    write_asking(tmp_path, asking)
    assert read_asking(tmp_path) == read_asking(str(tmp_path)) == asking
    shown = json.loads((tmp_path / ASKING_FILE).read_text())["template"]
    assert "{question}" in shown[-1]["content"]
    assert "{its answer}" in shown[-1]["content"]


def test_no_file_and_no_folder_say_nothing(tmp_path: Path):
    (tmp_path / "file").touch()
    for model in (tmp_path, tmp_path / "nowhere", tmp_path / "file", "Qwen/Qwen2.5-3B-Instruct"):
        assert read_asking(model) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "expected a JSON object"),
        (b"\xff\xfe", "UTF-8"),
        (b"{}", 'field "format" is missing'),
        ({"model": "of another program"}, 'field "format" is missing'),
        ({**GOOD, "format": 2}, "newer version of convsearch (format 2; this one reads 1)"),
        ({**GOOD, "format": "1"}, "format"),
        ({**GOOD, "format": True}, "format"),
        ({**GOOD, "style": "haiku"}, "must be one of instruct, nano"),
        ({**GOOD, "style": ["nano"]}, "must be one of instruct, nano"),
        ({**GOOD, "max_response_tokens": 0}, '"max_response_tokens" must be a whole number'),
        ({**GOOD, "max_response_tokens": "96"}, "must be a whole number"),
        ({**GOOD, "max_prompt_tokens": True}, "must be a whole number"),
        ({**GOOD, "dataset": 5}, '"dataset" must be text'),
        ({**GOOD, "template_sha256": None}, '"template_sha256" must be text'),
        ({**GOOD, "temprature": 1}, '"temprature" is not known'),
    ],
)
def test_what_is_no_such_file_is_a_sentence(tmp_path: Path, content: bytes | dict, said: str):
    path = tmp_path / ASKING_FILE
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(DataError) as caught:
        read_asking(tmp_path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_folder_in_its_place_is_a_sentence(tmp_path: Path):
    (tmp_path / ASKING_FILE).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_asking(tmp_path)


def test_a_byte_order_mark_and_nulls_are_no_fault(tmp_path: Path):
    record = {**GOOD, "engine": None}
    (tmp_path / ASKING_FILE).write_bytes(b"\xef\xbb\xbf" + json.dumps(record).encode())
    assert read_asking(tmp_path) == parse_asking(json.dumps(GOOD), "here")


def test_styles_have_hashes_of_their_own_that_follow_their_words(monkeypatch):
    styles: tuple[PromptStyle, ...] = get_args(PromptStyle)
    before = {style: template_sha256(style) for style in styles}
    assert len(set(before.values())) == len(styles)
    monkeypatch.setattr(plain, "INSTRUCTION", "Other words.")
    assert {s for s in styles if template_sha256(s) != before[s]} == {"plain"}
    monkeypatch.setattr(conversation, "NANO_HISTORY_CHARS", 300)
    assert {s for s in styles if template_sha256(s) != before[s]} == {"plain", "nano"}


def test_the_embedded_policy_says_how_to_ask_it_with_the_words_of_today():
    found = read_asking(NANO_POLICY)
    assert found is not None
    assert (found.style, found.max_response_tokens, found.stage) == ("nano", 96, "nano")
    assert found.template_sha256 == template_sha256("nano"), "build assets/nano again"
