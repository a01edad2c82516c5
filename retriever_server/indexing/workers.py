"""The processes that torchrun starts, seen from one of them."""

import os
from datetime import timedelta

from convsearch.errors import DependencyError, install_command

_LONGEST_WAIT = timedelta(days=14)
"""For processes whose share takes longer; a dead one is ended by torchrun."""


class Workers:
    """This process among those of a run; alone without torchrun."""

    def __init__(self) -> None:
        """Reads the variables of torchrun, takes this process' GPU and meets the others."""
        self.rank = int(os.environ.get("RANK", "0"))
        self.number = int(os.environ.get("WORLD_SIZE", "1"))
        if self.number == 1:
            return
        try:
            import torch
            from torch import distributed
        except ImportError:
            raise DependencyError(
                f"torch is not installed; run {install_command('retriever')}"
            ) from None
        if torch.cuda.is_available():
            local = int(os.environ.get("LOCAL_RANK", "0"))
            torch.cuda.set_device(local % torch.cuda.device_count())
        if not distributed.is_initialized():
            from convsearch.network import torch_store

            torch_store.install()
            meeting = os.environ.get("DIST_INIT_METHOD")  # set by convsearch.train.one_machine
            distributed.init_process_group("gloo", init_method=meeting, timeout=_LONGEST_WAIT)

    @property
    def is_first(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when all processes have called it."""
        if self.number > 1:
            from torch import distributed

            distributed.barrier()

    def share(self, items: int) -> range:
        """The items of this process: runs that follow each other, none twice and none left out."""
        return range(items * self.rank // self.number, items * (self.rank + 1) // self.number)
