"""Gathering single calls into batches."""

import asyncio
import time

import pytest
from convsearch_verl.micro_batch import MicroBatcher


class Doubler:
    """Doubles numbers and remembers the batches it got."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await asyncio.sleep(0)
        if 13 in items:
            raise ConnectionError("no thirteen")
        return [2 * item for item in items]


def batcher(handle: Doubler, *, max_wait_s: float = 0.02) -> MicroBatcher[int, int]:
    return MicroBatcher(handle, batch_size=3, max_wait_s=max_wait_s)


def test_calls_share_batches_and_keep_their_own_results() -> None:
    handle = Doubler()

    async def run() -> list[int]:
        gather = batcher(handle)
        return await asyncio.gather(*(gather.submit(i) for i in range(7)))

    assert asyncio.run(run()) == [0, 2, 4, 6, 8, 10, 12]
    assert handle.batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_full_batch_does_not_wait() -> None:
    handle = Doubler()

    async def run() -> None:
        gather = batcher(handle, max_wait_s=60)
        await asyncio.gather(*(gather.submit(i) for i in range(3)))

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 5


def test_an_error_reaches_every_caller_of_its_batch_and_nobody_else() -> None:
    handle = Doubler()

    async def run() -> list[int | BaseException]:
        gather = batcher(handle)
        return await asyncio.gather(
            *(gather.submit(i) for i in (1, 13, 2, 4, 5)), return_exceptions=True
        )

    results = asyncio.run(run())
    assert [type(r) for r in results[:3]] == [ConnectionError] * 3
    assert results[3:] == [8, 10]


def test_too_few_results_are_an_error_not_a_hang() -> None:
    async def short(items: list[int]) -> list[int]:
        return items[:-1]

    async def run() -> None:
        await MicroBatcher(short, batch_size=2, max_wait_s=0.01).submit(1)

    with pytest.raises(ValueError, match="1 items were handled with 0 results"):
        asyncio.run(run())
