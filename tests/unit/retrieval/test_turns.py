"""Turns on the event loop: how many go on in a pass, in which order, and who inherits a turn."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from retriever_server.limits import Deadline
from retriever_server.metrics import Metrics
from retriever_server.turns import Turns


async def passes_until_done(turns: Turns, number: int) -> list[list[int]]:
    """Which of `number` coroutines went on in each pass of the loop."""
    went: list[int] = []

    async def go(i: int) -> None:
        await turns.take()
        went.append(i)

    tasks = [asyncio.ensure_future(go(i)) for i in range(number)]
    passes = []
    for _ in range(50):
        before = len(went)
        await asyncio.sleep(0)
        if len(went) > before:
            passes.append(went[before:])
    await asyncio.gather(*tasks)
    return passes


@pytest.mark.parametrize(("per_pass", "number"), [(1, 5), (2, 7), (3, 3), (4, 1)])
def test_no_pass_has_more_than_its_share_and_order_holds(per_pass: int, number: int) -> None:
    passes = asyncio.run(passes_until_done(Turns(per_pass), number))
    assert [i for one in passes for i in one] == [*range(number)]
    assert max(map(len, passes)) == min(per_pass, number)
    assert all(len(one) == per_pass for one in passes[:-1])


def test_what_comes_in_between_is_looked_at_before_the_crowd_is_done() -> None:
    async def crowd() -> int:
        turns, went = Turns(2), []

        async def go() -> None:
            await turns.take()
            went.append(1)

        tasks = [asyncio.ensure_future(go()) for _ in range(1000)]
        await asyncio.sleep(0)
        checked = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0, checked.set_result, None)  # as a socket would
        await checked
        seen = len(went)
        await asyncio.gather(*tasks)
        assert len(went) == 1000
        return seen

    assert asyncio.run(crowd()) < 20


def test_a_cancelled_turn_goes_to_the_next() -> None:
    async def one_leaves() -> list[int]:
        turns, went = Turns(1), []

        async def go(i: int) -> None:
            await turns.take()
            went.append(i)

        tasks = [asyncio.ensure_future(go(i)) for i in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
        await asyncio.wait_for(turns.take(), 1)  # and the gate is open again
        return went

    assert asyncio.run(one_leaves()) == [0, 2, 3]


def test_requests_that_wait_for_their_turn_cost_no_task_and_meet_the_deadline() -> None:
    statuses: list[int] = []

    class Late(Turns):
        async def take(self) -> None:
            await asyncio.sleep(0.2)

    async def quick(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async def crowd(deadline_s: float) -> None:
        late = Deadline(quick, deadline_s=deadline_s, turns=Late(1), metrics=Metrics())
        scope = {"type": "http", "path": "/retrieve"}
        waiting = [asyncio.ensure_future(late(scope, receive, send)) for _ in range(10)]
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == len(waiting) + 1, "theirs and this one"
        await asyncio.gather(*waiting)

    asyncio.run(crowd(0.1))
    assert statuses == [504] * 10
    asyncio.run(crowd(60.0))
    assert statuses == [504] * 10 + [200] * 10
