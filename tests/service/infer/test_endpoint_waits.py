"""Endpoints that are busy, down or broken: how long is waited, what is kept, what is said."""

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from rewriting import some_turns
from scripted_endpoint import Reply, Seen, scripted

from convsearch.cli.main import main
from convsearch.errors import EngineError
from convsearch.files import read_rewrites, write_jsonl, write_qrels, write_turns
from convsearch.infer import SamplingParams, infer_rewrites
from convsearch.infer.journal import journal_path, passport_path
from convsearch.infer.openai_engine import OpenaiEngine

PARAMS = SamplingParams(temperature=0.5, max_tokens=33)
CHAT = [{"role": "user", "content": "p"}]
AWAY = "http://192.0.2.1:8000"
"""An address that is given to nobody (RFC 5737)."""
Cli = Callable[..., tuple[int, str, str]]


def ask(seen: Seen, count: int = 1, **options):
    engine = OpenaiEngine("m", seen.url, **options)
    try:
        began = time.monotonic()
        found = engine.generate([CHAT] * count, PARAMS, range(count))
        return found, time.monotonic() - began
    finally:
        engine.close()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convsearch", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_turns(folder / "turns.jsonl", some_turns(6, split="test"))
    write_jsonl(folder / "corpus.jsonl", [{"doc_id": "d0", "title": "", "text": "a ferry"}])
    write_qrels(folder / "qrels.trec", {f"q{i}": {"d0": 1} for i in range(6)})
    return folder


def infer(seen_url: str, data: Path, out: Path) -> list[object]:
    return [
        "infer", "--dataset", data, "--engine", "openai", "--engine-url", seen_url, "--model", "m",
        "--out", out, "--batch-size", 2,
    ]  # fmt: skip


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date", "date of a wrong clock"])
def test_the_wait_that_is_asked_for_is_kept(status: int, form: str):
    """Of a server whose clock is an hour off, the difference of its own two dates counts."""
    now = time.time() - (3600 if "wrong" in form else 0)
    asked = "2" if form == "seconds" else httpdate(now + 2)
    busy = Reply(status=status, headers={"Retry-After": asked}, body={"error": "slow down"})
    with scripted(lambda _, number: busy if number < 2 else Reply(), date=httpdate(now)) as seen:
        found, took_s = ask(seen, 2)
    assert [g.error for g in found] == [None, None]
    assert 2 <= took_s < 12
    assert len(seen.bodies) == 4


def httpdate(at: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))


@pytest.mark.parametrize("asked", ["600", "date", "9" * 400])
def test_a_wait_beyond_the_deadline_is_not_begun(asked: str):
    said = httpdate(time.time() + 600) if asked == "date" else asked
    busy = Reply(status=429, headers={"Retry-After": said}, body={"error": "slow down"})
    with scripted(lambda _, number: busy if number == 0 else Reply()) as seen:
        found, took_s = ask(seen, 2, concurrency=1)
    assert found[0].error is not None
    assert "HTTP 429" in found[0].error
    assert "slow down" in found[0].error
    assert "beyond the 120 s" in found[0].error
    assert found[1].error is None
    assert took_s < 10
    assert len(seen.bodies) == 2


@pytest.mark.parametrize("asked", ["soon", "-5", "nan", "²", "Wed, 99 Foo 1", None])
def test_without_a_wait_that_can_be_read_it_is_asked_again_with_growing_waits(asked: str | None):
    """Four failures ended a request before."""
    headers = {} if asked is None else {"Retry-After": asked.encode().decode("latin-1")}
    broken = Reply(status=500 if asked is None else 429, headers=headers, body={"error": "no"})
    failures = 4 if asked is None else 1
    with scripted(lambda _, number: broken if number < failures else Reply()) as seen:
        [answer], took_s = ask(seen)
    assert answer.error is None
    assert len(seen.bodies) == failures + 1
    if asked is None:
        assert 3.5 < took_s < 15


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 504, 520, 529])
def test_what_may_pass_is_tried_again(status: int):
    with scripted(lambda _, number: Reply(status=status if not number else 200)) as seen:
        [answer], _ = ask(seen)
    assert (answer.error, len(seen.bodies)) == (None, 2)


@pytest.mark.parametrize("status", [400, 413, 422, 501])
def test_what_will_not_pass_is_not(status: int):
    with scripted(lambda _, number: Reply(status=status, body={"error": "not\nthis"})) as seen:
        [answer], _ = ask(seen)
    assert answer.error == f'HTTP {status}: {{"error": "not\\nthis"}}'
    assert len(seen.bodies) == 1


def test_once_an_endpoint_is_silent_nobody_waits_for_each_request():
    with scripted(lambda _, number: Reply(status=503)) as seen:
        engine = OpenaiEngine("m", seen.url, deadline_s=2, concurrency=2)
        began = time.monotonic()
        with pytest.raises(EngineError, match=r"the last 40 requests got no answer \(HTTP 503"):
            engine.generate([CHAT] * 40, PARAMS, range(40))
        engine.close()
    assert time.monotonic() - began < 12  # twenty times two seconds otherwise


def test_a_moved_endpoint_is_named():
    moved = Reply(status=308, headers={"Location": "http://127.0.0.1:1/v1/chat/completions"})
    with (
        scripted(lambda _, number: moved) as seen,
        pytest.raises(EngineError, match=r"308, it is at 'http://127.0.0.1:1/v1/chat"),
    ):
        ask(seen)


def test_where_nothing_is_answered_the_command_fails_and_asks_again_the_next_time(
    cli: Cli, data: Path, tmp_path: Path
):
    out = tmp_path / "o.jsonl"
    replies = Reply(status=422, body={"error": "no such adapter"})
    with scripted(lambda _, number: replies) as seen:
        code, said, err = cli(*infer(seen.url, data, out))
        assert code == 2, err
        assert said == ""
        assert err.splitlines()[-1] == (
            'error: no answer to any of 6 requests (the first: HTTP 422: {"error": "no such '
            'adapter"}); mend that and run the same command again: finished work is kept'
        )
        assert "Traceback" not in err
        assert not out.exists()
        assert not journal_path(out).exists()  # an address may be mended without --fresh
        replies = Reply()
        code, said, err = cli(*infer(seen.url, data, out))
    assert (code, said) == (0, f"{out}: rewrites 6, ok 6, malformed 0, failed 0\n")


def test_some_without_an_answer_are_told_in_a_line(cli: Cli, data: Path, tmp_path: Path, caplog):
    out = tmp_path / "o.jsonl"
    bad = {0, 1, 4}
    with scripted(lambda _, number: Reply(status=422 if number in bad else 200)) as seen:
        code, said, _ = cli(*infer(seen.url, data, out))
        assert (code, said) == (0, f"{out}: rewrites 6, ok 3, malformed 0, failed 3\n")
        assert "3 of 6 requests got no answer (the first: HTTP 422" in caplog.text
        bad = set(range(99))
        before = out.read_bytes(), passport_path(out).read_bytes()
        code, said, err = cli(*infer(seen.url, data, out), "--retry-failed")
        assert code == 2
        assert "no answer to any of 3 requests" in err
        assert (out.read_bytes(), passport_path(out).read_bytes()) == before
        assert not journal_path(out).exists()
        bad = set()
        assert cli(*infer(seen.url, data, out), "--retry-failed")[0] == 0
    assert {r.status for r in read_rewrites(out)} == {"ok"}


def test_an_endpoint_that_goes_down_in_the_middle_keeps_what_was_done(data: Path, tmp_path: Path):
    out = tmp_path / "o.jsonl"
    options = {"out_path": out, "style": "nano", "params": PARAMS, "seed": 0, "batch_size": 40}
    with scripted(lambda _, number: Reply(status=200 if number < 40 else 503)) as seen:
        engine = OpenaiEngine("m", seen.url, deadline_s=6, concurrency=8)
        with pytest.raises(EngineError, match="40 requests got no answer"):
            infer_rewrites(some_turns(100), engine, **options)
        engine.close()
        assert len(journal_path(out).read_bytes().splitlines()) == 41
    assert not out.exists()


def test_a_dead_endpoint_is_one_sentence_and_hardly_a_line_more(
    cli: Cli, data: Path, tmp_path: Path
):
    """It was 24 lines of attempts."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    began = time.monotonic()
    code, _, err = cli(*infer(url, data, tmp_path / "o.jsonl"), "--fresh")
    assert code == 2
    assert time.monotonic() - began < 20
    lines = [line for line in err.splitlines() if "attempt" in line or "error" in line]
    assert len(lines) <= 3, err
    assert lines[0].startswith("attempt 1 failed (All connection attempts failed)")
    assert f"{url}/v1/chat/completions: not one of 2 requests reached it" in lines[-1]


def test_an_answer_that_cannot_be_unpacked_is_a_failed_request():
    packed = Reply(headers={"Content-Encoding": "gzip"}, body=b"not gzip")
    with scripted(lambda _, number: packed) as seen:
        [answer], _ = ask(seen, attempts=2)
    assert answer.error is not None
    assert "cannot be unpacked" in answer.error
    assert httpx.DecodingError.__name__ not in answer.error


@pytest.mark.parametrize(
    "words",
    [["doctor"], ["rewrite", "why?", "--engine", "openai", "--engine-url", AWAY, "--model", "m"]],
)
def test_a_wrong_proxy_ends_commands_with_a_sentence(
    words: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NO_PROXY", "[::1]")
    code, said, err = cli(*words)
    assert code == 2
    assert "NO_PROXY: the entry '[::1]' is no host name or address; write ::1" in said + err
    assert "Traceback" not in said + err
