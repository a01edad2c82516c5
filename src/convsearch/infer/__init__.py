"""Inference: engines behind one interface, and the runner that makes a rewrite of every turn."""

from convsearch.infer.engine import Engine, Generation, SamplingParams
from convsearch.infer.registry import DEFAULT_BATCH_SIZES, ENGINES, open_engine
from convsearch.infer.runner import infer_rewrites

__all__ = [
    "DEFAULT_BATCH_SIZES",
    "ENGINES",
    "Engine",
    "Generation",
    "SamplingParams",
    "infer_rewrites",
    "open_engine",
]
