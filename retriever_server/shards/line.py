"""The line to the process of one shard: calls with a deadline, and whether it is worth calling."""

import logging
import math
import threading
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, cast

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from convsearch.errors import EngineError
from retriever_server.parts import Found, Golds, Ints
from retriever_server.shards.backend import ShardError
from retriever_server.watch import IndexChangedError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_PROBE_S = 10.0
"""Of one question to a shard that may not be there; then it is asked again."""
_STEP_S = 0.25
"""After which a call that waits looks whether its shard is still there."""
_LOST = (RayError, RayServeException, TimeoutError, CancelledError)

_log = logging.getLogger(__name__)


class Line:
    """To one shard. A shard that failed is not called until it has answered a question of the
    line's own, so a request never waits for a process that is being restarted."""

    def __init__(self, name: str, deadline_s: float) -> None:
        """name: for people. deadline_s: of one call."""
        self._name = name
        self._handle: DeploymentHandle | None = None
        self._deadline_s = deadline_s
        self._up = threading.Event()
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=f"watch-{name}", daemon=True)

    def open(self, handle: "DeploymentHandle") -> None:
        """Asks the shard how it is, and watches it. Raises EngineError with its trouble."""
        self._handle = handle
        try:
            trouble = self._ask("trouble", timeout_s=None)
        except _LOST as error:
            raise EngineError(f"{self._name} did not start: {_first_line(error)}") from None
        if trouble is not None:
            raise EngineError(f"{self._name}: {trouble}")
        self._up.set()
        self._watcher.start()

    def close(self) -> None:
        """Ends the watch, and calls that wait: none may touch Ray after its shutdown, which ends
        the process there and then."""
        self._closed.set()
        if self._watcher.is_alive():
            self._watcher.join(_PROBE_S)

    def is_up(self) -> bool:
        """Whether it is worth calling."""
        return self._up.is_set()

    def call(self, method: str, *args: object) -> object:
        """What the shard answers. Raises ShardError where it does not, EngineError where its
        engine fails, IndexChangedError where its files were changed."""
        if not self.is_up():
            raise ShardError(f"{self._name} is being restarted")
        try:
            return self._ask(method, *args, timeout_s=self._deadline_s, while_up=True)
        except RayTaskError as error:
            if isinstance(error.cause, IndexChangedError):
                raise IndexChangedError(f"{self._name}: {error.cause}") from None
            raise EngineError(f"{self._name}: {error.cause}") from None
        except _LOST as error:
            self._lose(_first_line(error))
            raise ShardError(f"{self._name}: {_first_line(error)}") from None

    def _ask(
        self, method: str, *args: object, timeout_s: float | None, while_up: bool = False
    ) -> object:
        """Serve keeps a call for a shard that is not there until it is back: while_up gives it up
        as soon as the shard is known to be gone."""
        response = getattr(self._handle, method).remote(*args)
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                return response.result(timeout_s=_STEP_S)
            except TimeoutError:
                if time.monotonic() > end or self._closed.is_set():
                    response.cancel()
                    raise
                if while_up and not self.is_up():
                    response.cancel()
                    raise

    def _lose(self, reason: str) -> None:
        if self._up.is_set():
            self._up.clear()
            _log.warning("%s does not answer (%s); it is being restarted", self._name, reason)

    def _watch(self) -> None:
        """Waits for the end of the shard, then for its return, and so on. No error ends it: a
        shard that nobody watches would be missing for good."""
        while not self._closed.is_set():
            try:
                if self._up.is_set():
                    self._ask("stay", timeout_s=None, while_up=True)
                elif (trouble := self._ask("trouble", timeout_s=_PROBE_S)) is None:
                    _log.warning("%s answers again", self._name)
                    self._up.set()
                else:
                    _log.warning("%s: %s", self._name, trouble)
                    self._closed.wait(_PROBE_S)
            except Exception as error:
                if self._closed.is_set():
                    return
                if not isinstance(error, _LOST):
                    _log.exception("%s: an unexpected error while it was watched", self._name)
                self._lose(_first_line(error))
                self._closed.wait(_STEP_S)


class RemotePart:
    """A `Part` at the other end of a line."""

    def __init__(self, line: Line, index: int) -> None:
        """index: place of the index in what the shard has open."""
        self._line, self._index = line, index

    def count_before(self, asked: object, golds: Golds, topk: int) -> Ints:
        """See `Part.count_before`. Raises ShardError."""
        return cast(Ints, self._line.call("count_before", self._index, asked, golds, topk))

    def best(self, asked: object, topk: int) -> list[Found]:
        """See `Part.best`. Raises ShardError."""
        return cast("list[Found]", self._line.call("best", self._index, asked, topk))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
