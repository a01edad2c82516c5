"""A key-value cache for transformers models that appends in place.

The library's own joins the whole cache to each new token, which on processors costs more than the
token.
"""

import torch
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """One layer's cache, kept in buffers with room for what comes."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends new positions (third axis); returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            room = end + end // 2
            self._buffers = (
                _grown(self.keys, key_states, start, room),
                _grown(self.values, value_states, start, room),
            )
        keys, values = self._buffers
        keys[..., start:end, :] = key_states
        values[..., start:end, :] = value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps these rows of the batch."""
        super().batch_select_indices(indices)
        self._buffers = None


def _grown(old: torch.Tensor | None, new: torch.Tensor, length: int, room: int) -> torch.Tensor:
    """A buffer shaped as `new` with `room` positions, the first `length` taken from `old`."""
    buffer = new.new_empty((*new.shape[:-2], room, new.shape[-1]))
    if old is not None and length:
        buffer[..., :length, :] = old
    return buffer
