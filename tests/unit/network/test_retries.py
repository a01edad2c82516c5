"""How long clients wait: what is asked for first, else growing waits, never beyond the deadline."""

import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import pytest

from convsearch.infer.openai_engine import WAITS as ENDPOINT
from convsearch.network.retries import Backoff, TransientError, Waits, retry_after_s
from convsearch.retrieval.transport import WAITS as SERVER

NOW = datetime(2026, 12, 1, 8, 0, tzinfo=timezone.utc)
LOST = httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("asked", "date", "wait_s"),
    [
        ("8", None, 8),
        (" 0 ", None, 0),
        ("1.5", None, 1.5),
        ("", None, 0),
        ("-1", None, 0),
        ("1e3", None, 0),
        ("inf", None, 0),
        ("soon", None, 0),
        ("Wed, 21 Oct", None, 0),
        ("Tue, 01 Dec 2026 08:00:30 GMT", NOW, 30),
        ("Tue, 01 Dec 2026 08:00:30 -0000", NOW, 30),
        ("Tue, 01 Dec 2026 09:00:30 +0100", NOW, 30),
        ("Tuesday, 01-Dec-26 08:00:30 GMT", NOW, 30),
        ("Tue Dec  1 08:00:30 2026", NOW, 30),
        ("Tue, 01 Dec 2026 07:00:00 GMT", NOW, 0),
        ("Tue, 01 Dec 99999 08:00:30 GMT", NOW, 0),
    ],
)
def test_what_a_server_asks_for(asked: str, date: datetime | None, wait_s: float):
    headers = {"retry-after": asked}
    if date is not None:
        headers["date"] = format_datetime(date, usegmt=True)
    assert retry_after_s(httpx.Headers(headers)) == wait_s


def test_a_date_at_the_end_of_all_dates_is_far_away():
    asked = httpx.Headers({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"})
    assert retry_after_s(asked) > 1e9


def test_a_date_without_the_clock_of_the_server_is_read_by_ours():
    until = datetime.now(timezone.utc) + timedelta(seconds=60)
    for date in ({}, {"date": "yesterday"}):
        asked = httpx.Headers({"retry-after": format_datetime(until, usegmt=True), **date})
        assert 50 < retry_after_s(asked) <= 60


@pytest.mark.parametrize("waits", [ENDPOINT, SERVER])
@pytest.mark.parametrize("asked_s", [0.5, 8, 50, 119])
def test_what_is_asked_for_within_the_deadline_is_waited_for(waits: Waits, asked_s: float):
    for _ in range(50):
        wait_s = Backoff(time.monotonic() + 120, waits)(TransientError("", retry_after_s=asked_s))
        assert asked_s <= wait_s <= min(asked_s + 2, 119.9)


@pytest.mark.parametrize("asked_s", [120, 10**6, float("inf")])
def test_what_is_asked_for_beyond_it_is_not(asked_s: float):
    asking = TransientError("", retry_after_s=asked_s)
    assert Backoff(time.monotonic() + 120, ENDPOINT)(asking) is False


def test_an_endpoint_is_asked_about_ten_times_within_two_minutes():
    """It was four times in three seconds."""
    for _ in range(50):
        backoff, waited, tries = Backoff(time.monotonic() + 120, ENDPOINT), 0.0, 1
        while waited + (wait_s := float(backoff(LOST))) < 120:
            waited, tries = waited + wait_s, tries + 1
        assert 9 <= tries <= 18
        assert waited > 100


def test_other_errors_are_not_tried_again():
    assert Backoff(time.monotonic() + 120, ENDPOINT)(ValueError("no")) is False
