"""A key-value cache with room to grow. Imports torch and transformers; only the engine imports it.

transformers' own dynamic cache copies all keys and values for every new token, which on a CPU takes
more time than a small model itself.
"""

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

SPARE_POSITIONS = 64
"""Positions that are allocated beyond those in use, each time that the room is used up."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, shape (rows, heads, positions, width), in larger buffers."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the new positions at the end; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._length = 0
            self._key_room = key_states[:, :, :0]
            self._value_room = value_states[:, :, :0]
        needed = self._length + key_states.shape[-2]
        if needed > self._key_room.shape[-2]:
            self._key_room = _larger(self._key_room, self._length, needed + SPARE_POSITIONS)
            self._value_room = _larger(self._value_room, self._length, needed + SPARE_POSITIONS)
        self._key_room[:, :, self._length : needed] = key_states
        self._value_room[:, :, self._length : needed] = value_states
        self._length = needed
        return self._show()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the rows with these indices, in this order; an index may occur several times."""
        if self.get_seq_length() > 0:
            self._key_room = self._key_room[indices]
            self._value_room = self._value_room[indices]
            self._show()

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lets upstream's code see the part in use."""
        keys = self._key_room[:, :, : self._length]
        values = self._value_room[:, :, : self._length]
        self.keys, self.values = keys, values
        return keys, values


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for a model; layers of another kind than full attention stay upstream's."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def _larger(room: torch.Tensor, length: int, positions: int) -> torch.Tensor:
    rows, heads, _, width = room.shape
    larger = room.new_empty((rows, heads, positions, width))
    larger[:, :, :length] = room[:, :, :length]
    return larger
