"""Where the server's log goes: lines of JSON, written by a thread of their own.

A terminal or pipe that nobody reads stops that thread and nothing else: requests go on, and lines
beyond the buffer are dropped.
"""

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convsearch.errors import ConfigError
from retriever_server.request_log import JsonLines

_BUFFERED_LINES = 10_000
_FLUSH_S = 1.0
"""Longest wait at the end for lines that are not written yet."""
_LEVELS = {"retriever_server": logging.INFO, "uvicorn": logging.WARNING}


class LogWriter(logging.Handler):
    """Hands records to another handler in a thread."""

    def __init__(self, out: logging.Handler) -> None:
        super().__init__()
        self._out = out
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(_BUFFERED_LINES)
        self._thread = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Never blocks; drops the record where the buffer is full."""
        self._put(record)

    def finish(self) -> bool:
        """Writes what is left, for a second at most. False where that did not suffice: then the
        thread holds the output, and an orderly exit of the interpreter would wait for it."""
        self._put(None)
        self._thread.join(_FLUSH_S)
        return not self._thread.is_alive()

    def _put(self, record: logging.LogRecord | None) -> None:
        try:
            self._records.put_nowait(record)
        except queue.Full:
            return

    def _write(self) -> None:
        while (record := self._records.get()) is not None:
            self._out.handle(record)
        self._out.close()


@contextmanager
def json_log(path: Path | None) -> Iterator[LogWriter]:
    """Logs of this package and of uvicorn go to the file, or to stderr, for as long as the block.

    The caller ends it with `finish`. Raises ConfigError where the file cannot be written.
    """
    try:
        out = logging.FileHandler(path, encoding="utf-8") if path else logging.StreamHandler()
    except OSError as error:
        raise ConfigError(f"{path}: the log cannot be written ({error})") from None
    out.setFormatter(JsonLines())
    writer = LogWriter(out)
    loggers = [logging.getLogger(name) for name in _LEVELS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(writer)
        logger.setLevel(_LEVELS[logger.name])
    try:
        yield writer
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(writer)
            logger.setLevel(level)
