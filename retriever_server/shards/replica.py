"""What runs in the process of a shard, as an actor of Ray Serve."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from convsearch.errors import ConvsearchError
from convsearch.network.private_ray import close_serve_port
from retriever_server.parts import Found, Golds, Ints, Part
from retriever_server.shards.plan import PartSpec, open_part
from retriever_server.watch import IndexWatch

T = TypeVar("T")


class ShardReplica:
    """The same shard of every index that the server has.

    Searches run beside the actor's event loop, so it answers `trouble` meanwhile.
    """

    def __init__(self, specs: Sequence[PartSpec], *, threads: int, private: bool) -> None:
        """threads: that search, for each index. private: whether all shards are on this machine.

        An index that cannot be opened is no error here: Serve would try again and again, and the
        sentence would be lost. `trouble` tells it.
        """
        if private:
            close_serve_port()
        self._parts: list[Part] = []
        self._trouble: str | None = None
        # by place; made before the parts are opened
        self._watch = IndexWatch({str(i): [spec.index_path] for i, spec in enumerate(specs)})
        self._pool = ThreadPoolExecutor(len(specs), thread_name_prefix="shard")
        try:
            self._parts = [open_part(spec, threads=threads) for spec in specs]
            self._watch.settle()
        except ConvsearchError as error:
            self._trouble = str(error)

    async def trouble(self) -> str | None:
        """Why this shard cannot search, or None."""
        return self._trouble

    async def stay(self) -> None:
        """Never returns: whoever waits for it learns at once when this process is gone."""
        await asyncio.Event().wait()

    async def count_before(self, index: int, asked: object, golds: Golds, topk: int) -> Ints:
        """See `Part.count_before`. index: place in the list of specs."""
        part = self._parts[index]
        return await self._run(index, lambda: part.count_before(asked, golds, topk))

    async def best(self, index: int, asked: object, topk: int) -> list[Found]:
        """See `Part.best`; index as above."""
        part = self._parts[index]
        return await self._run(index, lambda: part.best(asked, topk))

    async def _run(self, index: int, work: Callable[[], T]) -> T:
        """Raises IndexChangedError where files of the index were changed on this machine."""
        watched = functools.partial(self._watch.guarded, str(index), work)
        return await asyncio.get_running_loop().run_in_executor(self._pool, watched)
