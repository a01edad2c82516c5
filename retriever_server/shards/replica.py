"""What runs in the process of a shard, as an actor of Ray Serve."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from convsearch.errors import ConvsearchError
from retriever_server.parts import Found, Golds, Ints, Part
from retriever_server.shards.plan import PartSpec, open_part


class ShardReplica:
    """The same shard of every index that the server has.

    Searches run beside the actor's event loop, so it answers `trouble` meanwhile.
    """

    def __init__(self, specs: Sequence[PartSpec], *, threads: int) -> None:
        """threads: that search, for each index.

        An index that cannot be opened is no error here: Serve would try again and again, and the
        sentence would be lost. `trouble` tells it.
        """
        self._parts: list[Part] = []
        self._trouble: str | None = None
        self._pool = ThreadPoolExecutor(len(specs), thread_name_prefix="shard")
        try:
            self._parts = [open_part(spec, threads=threads) for spec in specs]
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
        return await self._run(lambda: self._parts[index].count_before(asked, golds, topk))

    async def best(self, index: int, asked: object, topk: int) -> list[Found]:
        """See `Part.best`; index as above."""
        return await self._run(lambda: self._parts[index].best(asked, topk))

    async def _run(self, work):
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
