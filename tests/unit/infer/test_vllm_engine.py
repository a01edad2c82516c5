"""vLLM where it is not installed. With it, on a GPU, the second test runs it."""

from importlib import metadata
from pathlib import Path

import pytest
from rewriting import some_turns
from tiny_model import make_tiny_model

from convsearch.errors import DependencyError
from convsearch.infer import SamplingParams, open_engine
from convsearch.prompts import rewrite_messages


def is_installed() -> bool:
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(is_installed(), reason="vLLM is installed here")
def test_its_absence_is_a_sentence(tmp_path: Path):
    with pytest.raises(DependencyError, match=r"vLLM is not installed.*--engine transformers"):
        open_engine("vllm", str(tmp_path))


@pytest.mark.vllm
@pytest.mark.skipif(not is_installed(), reason="needs vLLM and a GPU")
def test_rows_depend_on_their_seeds(tmp_path: Path):
    engine = open_engine("vllm", str(make_tiny_model(tmp_path / "model", taught_steps=150)))
    chats = [rewrite_messages(turn, "nano") for turn in some_turns(6)]
    params = SamplingParams(temperature=0.9, max_tokens=24)
    first = engine.generate(chats, params, range(6))
    assert first == engine.generate(chats, params, range(6))
    assert first != engine.generate(chats, params, range(10, 16))
    engine.close()
