"""Inference: engines behind one interface, and the runner that makes a rewrite of every turn."""

from convsearch.infer.engine import Block, BlockEngine, Engine, Generation, SamplingParams
from convsearch.infer.plan import Plan
from convsearch.infer.registry import (
    DEFAULT_BATCH_SIZES,
    ENGINES,
    POOL_BATCH_SIZES,
    open_engine,
)
from convsearch.infer.runner import infer_rewrites, infer_to_file

__all__ = [
    "DEFAULT_BATCH_SIZES",
    "ENGINES",
    "POOL_BATCH_SIZES",
    "Block",
    "BlockEngine",
    "Engine",
    "Generation",
    "Plan",
    "SamplingParams",
    "infer_rewrites",
    "infer_to_file",
    "open_engine",
]
