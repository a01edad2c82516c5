"""The random model that the sampler and the layout of sequences are checked with, its tokenizer,
and a server for agents."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from agent_loop_case import CountingRetriever
from live_server import serving
from tiny_model import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from retriever_server.app import create_app


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("m") / "tiny"))


@pytest.fixture
def retriever() -> CountingRetriever:
    return CountingRetriever()


@pytest.fixture
def url(retriever: CountingRetriever) -> Iterator[str]:
    with serving(create_app(retriever, qrels={})) as address:
        yield address
