"""Child processes: they are watched, timed, explained, and never left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import until

from convsearch.errors import StageError
from convsearch.train.launch import MARKER, first_error, run_logged, run_processes

RUNS_AWAY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("started", flush=True)
time.sleep(600)
"""
"""A child that starts a grandchild outside its process group, as Ray does."""


def run(code: str, log_path: Path, **options: object) -> None:
    options = {"time_limit_s": 60.0, "env": {}, **options}
    run_logged([sys.executable, "-c", code], stage="toy", log_path=log_path, **options)  # pyright: ignore[reportArgumentType]


def run_id_in(log_path: Path) -> str:
    return log_path.read_text().split("id=")[1].split()[0]


WITH_ID = f"import os; print('id=' + os.environ['{MARKER}'], flush=True)\n"


def test_output_and_environment(tmp_path: Path) -> None:
    ticks = []
    run(
        "import os, sys; print('out', os.environ['TOY']); print('err', file=sys.stderr)",
        tmp_path / "logs" / "toy.log",
        env={"TOY": "7"},
        on_tick=lambda: ticks.append(1),
    )
    assert set((tmp_path / "logs" / "toy.log").read_text().split()) == {"out", "7", "err"}
    assert ticks


def test_a_failure_names_the_stage_the_log_and_the_cause(tmp_path: Path) -> None:
    code = (
        "from convsearch.errors import RetrieverError\n"
        "raise RetrieverError('http://h: down; start it')"
    )
    with pytest.raises(StageError, match=r"toy: .* 1: http://h: down; .* \(log: .*toy.log\)"):
        run(code, tmp_path / "toy.log")


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="only root may mount a small disk"
)
def test_a_full_disk_is_the_cause_although_its_log_cannot_say_so(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        fills = f"open({str(small / 'weights')!r}, 'wb').write(bytes(3_000_000))"
        with pytest.raises(StageError, match=r"toy: .*small: its disk is full .*toy\.log"):
            run(fills, small / "toy.log")
        (small / "weights").unlink()
        with pytest.raises(StageError, match="code 1: ValueError: other"):
            run("raise ValueError('other')", small / "toy.log")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_time_limit_ends_the_whole_tree(tmp_path: Path) -> None:
    log_path = tmp_path / "toy.log"

    def wait_for_both() -> None:
        until(lambda: "started" in log_path.read_text(), "the grandchild")

    with pytest.raises(StageError, match="not done after 2 s"):
        run(WITH_ID + RUNS_AWAY, log_path, time_limit_s=2.0, on_tick=wait_for_both)
    assert run_processes(run_id_in(log_path)) == []


def test_an_interrupt_ends_the_whole_tree(tmp_path: Path) -> None:
    log_path = tmp_path / "toy.log"

    def interrupt() -> None:
        if "started" in log_path.read_text():
            assert len(run_processes(run_id_in(log_path))) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(WITH_ID + RUNS_AWAY, log_path, on_tick=interrupt)
    assert run_processes(run_id_in(log_path)) == []


def test_what_a_finished_child_leaves_running_is_ended(tmp_path: Path) -> None:
    run(WITH_ID + RUNS_AWAY.replace("time.sleep(600)\n", "", 1), tmp_path / "toy.log")
    assert run_processes(run_id_in(tmp_path / "toy.log")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the signal for it is Linux's")
def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    log_path = tmp_path / "toy.log"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from convsearch.train.launch import run_logged\n"
            f"code = {WITH_ID + 'import time; time.sleep(600)'!r}\n"
            "run_logged([sys.executable, '-c', code], stage='toy', env={}, time_limit_s=600,"
            f" log_path=Path({str(log_path)!r}))",
        ]
    )
    until(lambda: log_path.exists() and "\n" in log_path.read_text(), "the child")
    run_id = run_id_in(log_path)
    parent.kill()
    parent.wait()
    until(lambda: run_processes(run_id) == [], "the end of the child")


def test_the_first_known_error_explains_a_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text(
        "ValueError: early\n"
        "\x1b[36m(Worker pid=7)\x1b[0m convsearch.errors.RetrieverError: http://h: down\n"
        "ray.exceptions.RayTaskError(StageError): later\n"
    )
    assert first_error(log) == "http://h: down"
    log.write_text("KeyError: 'a'\nnoise\nValueError: last\nnoise\n")
    assert first_error(log) == "ValueError: last"
    log.write_text("nothing known\n")
    assert first_error(log) is None
