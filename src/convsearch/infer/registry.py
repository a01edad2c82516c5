"""Engines by the name a user types."""

from convsearch.errors import ConfigError
from convsearch.infer.engine import Engine

DEFAULT_BATCH_SIZES = {"transformers": 64, "vllm": 4096, "openai": 64, "echo": 256}
"""Prompts of one block: what an engine is given at once, and what a kill can cost."""
POOL_BATCH_SIZES = {**DEFAULT_BATCH_SIZES, "vllm": 256}
"""The same where several engines share the work: small enough that all of them have some."""
ENGINES = tuple(DEFAULT_BATCH_SIZES)


def open_engine(
    name: str,
    model: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    url: str | None = None,
    tensor_parallel_size: int = 1,
    deadline_s: float = 120.0,
    tells_ids: bool = False,
) -> Engine:
    """Opens an engine, loading the model where it has one.

    model: checkpoint folder or hub name; the endpoint's name of the model for `openai`; `echo`
    takes none. url: of the `openai` endpoint. deadline_s: for one of its requests. tells_ids:
    whether it is asked for token ids.
    Raises ConfigError for an unknown name or a missing setting, CheckpointError, DependencyError.
    """
    if name not in ENGINES:
        raise ConfigError(f"unknown engine {name!r}; choose one of {', '.join(ENGINES)}")
    if name == "echo":
        from convsearch.infer.echo_engine import EchoEngine

        return EchoEngine()
    if model is None:
        raise ConfigError(f"engine {name!r} needs a model; name it with --model")
    if name == "transformers":
        from convsearch.infer.transformers_engine import TransformersEngine

        return TransformersEngine(model, device=device, dtype=dtype)
    if name == "vllm":
        from convsearch.infer.vllm_engine import VllmEngine

        return VllmEngine(model, dtype=dtype, tensor_parallel_size=tensor_parallel_size)
    from convsearch.infer.openai_engine import OpenaiEngine

    if url is None:
        raise ConfigError("engine 'openai' needs the endpoint's address; name it with --engine-url")
    return OpenaiEngine(model, url, deadline_s=deadline_s, tells_ids=tells_ids)
