"""vLLM itself, where it is installed and has a GPU."""

from importlib import util
from pathlib import Path

import pytest
from rewriting import some_turns
from tiny_model import make_tiny_model

from convsearch.infer import SamplingParams, open_engine
from convsearch.prompts import rewrite_messages


@pytest.mark.vllm
@pytest.mark.skipif(util.find_spec("vllm") is None, reason="needs vLLM and a GPU")
def test_rows_depend_on_their_seeds(tmp_path: Path):
    engine = open_engine("vllm", str(make_tiny_model(tmp_path / "model", taught_steps=150)))
    chats = [rewrite_messages(turn, "nano") for turn in some_turns(6)]
    params = SamplingParams(temperature=0.9, max_tokens=24)
    first = engine.generate(chats, params, range(6))
    assert first == engine.generate(chats, params, range(6))
    assert first != engine.generate(chats, params, range(10, 16))
    engine.close()
