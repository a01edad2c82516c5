"""The line to a shard whose Ray fails in ways that Ray does not name, and the room for shards."""

import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from live_server import ROOT, START_S

from retriever_server.shards.line import Line

ROOM = """
import threading
import ray
from convsearch.errors import ConfigError
from retriever_server.shards import instance

@ray.remote(num_cpus=2)
class Neighbour:
    def here(self):
        return True

with instance.own_instance(3):
    instance.check_room(3, 1, 0.0)
    neighbour = Neighbour.remote()
    assert ray.get(neighbour.here.remote())
    instance.check_room(1, 1, 0.0)
    for freed_s, shards in ((1.0, 2), (600.0, 4)):
        instance.FREED_S = freed_s
        try:
            instance.check_room(shards, 1, 0.0)
        except ConfigError as error:
            print(error, flush=True)
    threading.Timer(1.0, ray.kill, [neighbour]).start()
    instance.check_room(2, 1, 0.0)
    print("free again", flush=True)
"""


class Call:
    """A method of Serve's handle, and what it returns: errors in turn, then always the same."""

    def __init__(self, at_last: object) -> None:
        self.errors: list[Exception] = []
        self._at_last = at_last

    def remote(self) -> "Call":
        return self

    def result(self, timeout_s: float) -> object:
        if self.errors:
            raise self.errors.pop(0)
        if isinstance(self._at_last, Exception):
            time.sleep(0.01)
            raise self._at_last
        return self._at_last

    def cancel(self) -> None:
        pass


def test_a_shard_stays_watched_after_errors_that_nobody_expects(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = SimpleNamespace(stay=Call(TimeoutError()), trouble=Call(None), best=Call("found"))
    line = Line("shard 1 of 1", deadline_s=5)
    line.open(cast(Any, handle))
    handle.trouble.errors = [RuntimeError("no loop"), ValueError("no answer")]
    handle.stay.errors = [RuntimeError("Router is not initialized")]
    deadline = time.monotonic() + 30
    while handle.stay.errors or handle.trouble.errors or not line.is_up():
        assert time.monotonic() < deadline, "nobody watches the shard"
        time.sleep(0.01)
    assert line.call("best") == "found"
    line.close()
    assert caplog.text.count("an unexpected error while it was watched") == 3
    assert "Router is not initialized" in caplog.text


def test_room_is_what_others_leave_and_what_they_give_back() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ROOM], cwd=ROOT, capture_output=True, text=True,
        timeout=2 * START_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    taken, never, free_again = ended.stdout.splitlines()
    assert taken.startswith("2 shards of 1 CPU each need 2; Ray has 3, of which 1 are free")
    assert never.startswith("4 shards of 1 CPU each need 4; Ray has 3, of which 1 are free")
    assert free_again == "free again"
