"""What a training's output is made of: by it a later call keeps, goes on with, or refuses it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.made import Output, content_of
from convsearch.retrieval.identity import index_identity

if TYPE_CHECKING:
    from convsearch.train.grpo_settings import GrpoSettings
    from convsearch.train.sft import SftSettings

ANSWER_TIMEOUT_S = 5.0
_PATHS = ("model_path", "train_file", "val_file", "out_dir")
"""Settings whose content counts, not their name."""
_ALIKE = ("threads", "time_limit_s", "save_freq")
"""Settings that do not shape the result."""
_TRACES = ("checkpoints", "rollouts", "metrics.jsonl", "metrics.attempt.jsonl")


def shaping(settings: Mapping[str, object]) -> dict[str, object]:
    """Those of a training's settings that shape its result, by their names or as `grpo.threads`."""
    return {name: value for name, value in settings.items() if name.split(".")[-1] not in _ALIKE}


def grpo_output(settings: "GrpoSettings", metrics_path: Path) -> Output:
    """Of a GRPO training, its index left out: `served_index` tells that one."""
    return _output(settings, "grpo", [*_TRACES, *_beside(settings.out_dir, metrics_path)])


def sft_output(settings: "SftSettings") -> Output:
    """Of a fine-tuning."""
    return _output(settings, "sft", _TRACES)


def served_index(retriever_url: str) -> dict[str, object] | str:
    """Which index the server searches (`index_identity`). Raises RetrieverError where it does not
    answer."""
    from convsearch.retrieval.client import RetrieverClient

    with RetrieverClient(retriever_url, timeout_s=ANSWER_TIMEOUT_S) as client:
        client.wait_ready(ANSWER_TIMEOUT_S)
        return index_identity(client, retriever_url)


def _output(settings: "GrpoSettings | SftSettings", command: str, traces: Sequence[str]) -> Output:
    told = {name: value for name, value in asdict(settings).items() if name not in _PATHS}
    inputs = [settings.model_path, settings.train_file]
    if settings.val_file is not None:
        inputs.append(settings.val_file)
    return Output(
        passport=settings.out_dir / "run.json",
        command=command,
        made_of={
            **shaping(told),
            "model": content_of(settings.model_path),
            "train_file": content_of(settings.train_file),
            "val_file": content_of(settings.val_file),
        },
        results=("model",),
        traces=tuple(dict.fromkeys(traces)),
        sources=inputs,
    )


def _beside(folder: Path, path: Path) -> list[str]:
    """The name of a file, if it lies in the folder itself."""
    return [path.name] if path.parent.resolve() == folder.resolve() else []
