"""The random model that the sampler and the layout of sequences are checked with."""

import pytest
import torch
from tiny_model import make_tiny_model
from transformers import AutoModelForCausalLM, PreTrainedModel


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
