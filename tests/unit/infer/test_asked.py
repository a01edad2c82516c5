"""Flag before folder before the usual; a flag that contradicts the folder warns."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from convsearch.infer.asked import how_to_ask
from convsearch.prompts.asking import Asking, asking_of, write_asking
from convsearch.prompts.template import PromptTemplate

NANO = asking_of("nano", max_response_tokens=96)


def folder_with(folder: Path, asking: Asking = NANO) -> str:
    write_asking(folder, asking)
    return str(folder)


def test_the_folder_says_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = how_to_ask(folder_with(tmp_path))
    assert (found.style, found.max_tokens, found.told) == ("nano", 96, NANO)
    found = how_to_ask(folder_with(tmp_path), style="nano", max_tokens=96)
    assert (found.style, found.max_tokens) == ("nano", 96)
    assert caplog.text == ""


def test_without_a_word_of_the_folder_it_is_the_usual(tmp_path: Path, caplog):
    for model in (str(tmp_path), "owner/name", None):
        found = how_to_ask(model)
        assert (found.style, found.max_tokens, found.told) == ("instruct", 1024, None)
    found = how_to_ask(str(tmp_path), usual_style="cot", usual_max_tokens=4096)
    assert (found.style, found.max_tokens) == ("cot", 4096)
    assert how_to_ask(None, style="plain", max_tokens=5).style == "plain"
    found = how_to_ask(folder_with(tmp_path, asking_of("nano")), usual_max_tokens=4096)
    assert (found.style, found.max_tokens) == ("nano", 4096)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("told", "flags", "said"),
    [
        (
            NANO,
            {"style": "instruct"},
            "--prompt instruct: the model was trained with prompt style ",
        ),
        (NANO, {"max_tokens": 40}, "longer ones will be cut"),
        (NANO, {"max_tokens": 400}, "not learnt to go on"),
        (replace(NANO, template_sha256="0" * 64), {}, "other words of prompt style nano"),
        (NANO, {"prompt_file": PromptTemplate(text="{question}", where="mine.txt")}, "mine.txt: "),
    ],
)
def test_a_contradiction_warns_and_the_flag_counts(
    told: Asking, flags: dict, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    found = how_to_ask(folder_with(tmp_path, told), **flags)
    assert found.style == flags.get("style", "nano")
    assert found.max_tokens == flags.get("max_tokens", 96)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.getMessage()
    assert str(tmp_path / "convsearch.json") in record.getMessage()
