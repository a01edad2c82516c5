"""The name that clients ask a model by."""

from pathlib import Path

from convsearch.infer.checkpoint import model_name
from convsearch.prompts.asking import Asking

_NAMELESS = ("model", "huggingface", "actor")
"""Folders that every training has."""


def served_name(model: str, told: Asking | None) -> str:
    """A hub name as it is, a folder's own name; for a folder that is named as in every training,
    data set and stage (`mini-grpo`), or the name of the nearest folder around it that has one."""
    if model_name(model) not in _NAMELESS or not Path(model).is_dir():
        return model_name(model)
    if told is not None and told.dataset and told.stage:
        return f"{told.dataset.replace(', ', '+')}-{told.stage}"
    folder = Path(model).resolve()
    named = (parent.name for parent in folder.parents if parent.name not in ("", *_NAMELESS))
    return next(named, folder.name)
