"""The vLLM engine over ids, on vLLM's surface; `test_vllm_engine.py` asserts the same of vLLM."""

import sys
from collections.abc import Iterator

import pytest
import vllm_surface
from token_engine_case import (
    DIALOGUES,
    GREEDY,
    check_dialogues,
    check_room,
    check_stop,
    dialogues_of,
    make_roomy_model,
)

from convsearch.infer import Engine, open_engine
from convsearch.infer.token_engine import TokenEngine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_roomy_model(tmp_path_factory.mktemp("m") / "tiny"))


@pytest.fixture(scope="module")
def engine(model: str) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "vllm", vllm_surface)
        yield open_engine("vllm", model)


@pytest.mark.parametrize(("form", "name"), DIALOGUES)
def test_dialogues_are_those_of_transformers(engine: Engine, model: str, form: str, name: str):
    found = check_dialogues(engine, form, name)
    other = dialogues_of(open_engine("transformers", model, device="cpu"), form, name)
    assert [d.track for d in found] == [d.track for d in other]
    assert [d.state.spans for d in found] == [d.state.spans for d in other]


def test_a_stop_string_stays_in_the_text(engine: Engine):
    assert isinstance(engine, TokenEngine)
    check_stop(engine)


def test_a_dialogue_that_outgrows_the_model_fails_alone(engine: Engine):
    assert isinstance(engine, TokenEngine)
    check_room(engine)


def test_chats_are_answered_as_before(engine: Engine, model: str):
    chats = [[{"role": "user", "content": text}] for text in ("amber", "amber " * 5000, "x")]
    other = open_engine("transformers", model, device="cpu").generate(chats, GREEDY, [1, 2, 3])
    found = engine.generate(chats, GREEDY, [1, 2, 3])
    assert found == other
    assert [g.error is None for g in found] == [True, False, True]
