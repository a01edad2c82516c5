"""The line to the process of one shard: calls with a deadline, and whether it is worth calling."""

import logging
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, cast

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from convsearch.errors import EngineError
from retriever_server.parts import Found, Golds, Ints
from retriever_server.shards.backend import ShardError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_PROBE_S = 10.0
"""Within which a living shard says how it is; its searches run beside that."""
_PERIOD_S = 1.0
"""Between two probes."""
_LOST = (RayError, RayServeException, TimeoutError, CancelledError)

_log = logging.getLogger(__name__)


class Line:
    """To one shard. A shard that failed is not called until a probe has found it again, so a
    request never waits for a process that is being restarted."""

    def __init__(self, name: str, deadline_s: float) -> None:
        """name: for people. deadline_s: of one call."""
        self._name = name
        self._handle: DeploymentHandle | None = None
        self._deadline_s = deadline_s
        self._up = threading.Event()
        self._closed = threading.Event()
        self._prober = threading.Thread(target=self._probe_on, name=f"probe-{name}", daemon=True)

    def open(self, handle: "DeploymentHandle") -> None:
        """Asks the shard how it is, and goes on asking. Raises EngineError with its trouble."""
        self._handle = handle
        try:
            trouble = self._ask("trouble", timeout_s=None)
        except _LOST as error:
            raise EngineError(f"{self._name} did not start: {_first_line(error)}") from None
        if trouble is not None:
            raise EngineError(f"{self._name}: {trouble}")
        self._up.set()
        self._prober.start()

    def close(self) -> None:
        """Ends the probes."""
        self._closed.set()

    def is_up(self) -> bool:
        """Whether it is worth calling."""
        return self._up.is_set()

    def call(self, method: str, *args: object) -> object:
        """What the shard answers. Raises ShardError where it does not, EngineError where its
        engine fails."""
        if not self.is_up():
            raise ShardError(f"{self._name} is being restarted")
        try:
            return self._ask(method, *args, timeout_s=self._deadline_s)
        except RayTaskError as error:
            raise EngineError(f"{self._name}: {error.cause}") from None
        except _LOST as error:
            self._lose(_first_line(error))
            raise ShardError(f"{self._name}: {_first_line(error)}") from None

    def _ask(self, method: str, *args: object, timeout_s: float | None) -> object:
        response = getattr(self._handle, method).remote(*args)
        try:
            return response.result(timeout_s=timeout_s)
        except TimeoutError:
            response.cancel()
            raise

    def _lose(self, reason: str) -> None:
        if self._up.is_set():
            self._up.clear()
            _log.warning("%s does not answer (%s); it is being restarted", self._name, reason)

    def _probe_on(self) -> None:
        while not self._closed.wait(_PERIOD_S):
            try:
                trouble = self._ask("trouble", timeout_s=_PROBE_S)
            except _LOST as error:
                if not self._closed.is_set():
                    self._lose(_first_line(error))
                continue
            if trouble is not None:
                self._lose(str(trouble))
            elif not self._up.is_set():
                _log.warning("%s answers again", self._name)
                self._up.set()


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
