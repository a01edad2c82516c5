"""Where the server's log goes: lines of JSON, written by a thread of their own.

A terminal or pipe that nobody reads stops that thread and nothing else: requests go on, and lines
beyond the buffer are dropped.
"""

import logging
import logging.handlers
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convsearch.errors import ConfigError
from retriever_server.request_log import JsonLines

_BUFFERED_LINES = 10_000
_FLUSH_S = 1.0
"""Longest wait at the end for lines that are not written yet."""
_LOGGERS = ("retriever_server", "uvicorn")


class _Buffered(logging.handlers.QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


@contextmanager
def json_log(path: Path | None) -> Iterator[None]:
    """Logs of this package and of uvicorn go to the file, or to stderr, for as long as the block.

    Raises ConfigError where the file cannot be written.
    """
    try:
        out = logging.FileHandler(path, encoding="utf-8") if path else logging.StreamHandler()
    except OSError as error:
        raise ConfigError(f"{path}: the log cannot be written ({error})") from None
    out.setFormatter(JsonLines())
    lines: queue.Queue[object] = queue.Queue(_BUFFERED_LINES)
    buffered = _Buffered(lines)
    writer = logging.handlers.QueueListener(lines, out)
    writer.start()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(buffered)
    logging.getLogger("retriever_server").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).removeHandler(buffered)
            logging.getLogger(name).setLevel(level)
        end = time.monotonic() + _FLUSH_S
        while not lines.empty() and time.monotonic() < end:
            time.sleep(0.01)
        if lines.empty():
            writer.stop()
            out.close()
