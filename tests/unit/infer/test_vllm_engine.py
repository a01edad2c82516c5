"""vLLM where it is not installed; `tests/service/infer/test_vllm_engine.py` runs it where it is."""

from importlib import util
from pathlib import Path

import pytest

from convsearch.errors import DependencyError
from convsearch.infer import open_engine


@pytest.mark.skipif(util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_its_absence_is_a_sentence(tmp_path: Path):
    with pytest.raises(DependencyError, match=r"vLLM is not installed.*--engine transformers"):
        open_engine("vllm", str(tmp_path))
