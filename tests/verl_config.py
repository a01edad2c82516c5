"""verl's configuration as verl composes it, for the tests of recipes."""

import copy
from functools import cache

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig


def composed(name: str, overrides: list[str]) -> DictConfig:
    """A configuration of its own for each call; the same words are composed once."""
    return copy.deepcopy(_composed(name, tuple(overrides)))


@cache
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="verl.trainer.config", version_base=None):
        return compose(name, overrides=list(overrides))
