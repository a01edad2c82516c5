"""A broken rollout for the negative control: it takes the first weights it gets and no others.

verl imports it into every process of a run where `VERL_USE_EXTERNAL_MODULES` names it. Of all
processes only the rollout loads weights into a model leniently, and more than once.
"""

from typing import Any

import torch

_load = torch.nn.Module.load_state_dict
_MARK = "_has_its_weights"


def _load_once(self: torch.nn.Module, state_dict: Any, strict: bool = True, **options: Any) -> Any:
    if not strict and getattr(self, _MARK, False):
        return [], []
    object.__setattr__(self, _MARK, not strict)
    return _load(self, state_dict, strict=strict, **options)


torch.nn.Module.load_state_dict = _load_once  # pyright: ignore[reportAttributeAccessIssue]
