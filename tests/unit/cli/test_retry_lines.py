"""Requests that fail together are told in a line now and then."""

import pytest
from stamina.instrumentation import RetryDetails

from convsearch.cli.retry_lines import QUIET_S, RetryLines


def details(error: Exception, number: int = 1) -> RetryDetails:
    return RetryDetails(
        name="request",
        args=(),
        kwargs={},
        retry_num=number,
        wait_for=1.5,
        waited_so_far=0.0,
        caused_by=error,
    )


def test_the_first_of_a_kind_and_then_one_in_ten_seconds(capsys: pytest.CaptureFixture[str]):
    now = 100.0
    tell = RetryLines(lambda: now)
    for _ in range(16):
        tell(details(ConnectionError("refused")))
    tell(details(ValueError("HTTP 429: slow down, request 1")))
    tell(details(ValueError("HTTP 429: slow down, request 2")))
    tell(details(ValueError("HTTP 500: \x1b[31mno")))
    now += QUIET_S
    tell(details(ConnectionError("refused"), 3))
    tell(details(ConnectionError("refused"), 3))
    assert capsys.readouterr().err.splitlines() == [
        "attempt 1 failed (refused); the next in 1.5 s",
        "attempt 1 failed (HTTP 429: slow down, request 1); the next in 1.5 s",
        "attempt 1 failed (HTTP 500: \ufffd[31mno); the next in 1.5 s",
        "attempt 3 failed (refused), and 15 more like it; the next in 1.5 s",
    ]
