"""`convsearch data` over HTTP, killed in the middle, on a full disk, from a wheel."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_files import FaultyFiles, Served, faulty_files
from raw_files import QRECC_COUNTS, TOPIOCQA_COUNTS, write_catalogue, write_qrecc, write_topiocqa

from convsearch.cli.main import main
from convsearch.data.dataset import load_dataset

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]
DEADLINE_S = 60


@pytest.fixture
def server() -> Iterator[FaultyFiles]:
    with faulty_files() as running:
        yield running


def serve(server: FaultyFiles, raw: Path, name: str, catalogue: Path) -> Path:
    """Puts the raw files on the server and writes a catalogue of them."""
    paths = [path for path in sorted(raw.iterdir()) if not path.name.startswith(".")]
    server.files = {path.name: Served(path.read_bytes()) for path in paths}
    entries = {path.name: {"urls": [server.url("gone"), server.url(path.name)]} for path in paths}
    return write_catalogue(catalogue, {name: entries})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `convsearch data WORDS` in this process; gives its exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["convsearch", "data", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return (int(code or 0), *capsys.readouterr())

    return call


def expects(counts: dict[str, int]) -> list[str]:
    return [word for name, count in counts.items() for word in ("--expect", f"{name}={count}")]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "run.json"}


def test_from_the_mirrors_to_a_data_set_and_verified(
    server: FaultyFiles, tmp_path: Path, run: Run
) -> None:
    catalogue = serve(server, write_qrecc(tmp_path / "there"), "qrecc", tmp_path / "c.json")
    out, raw = tmp_path / "set", tmp_path / "raw"
    words = ["qrecc", "--out", out, "--raw", raw, "--catalogue", catalogue]
    code, told, errors = run(*words, *expects(QRECC_COUNTS), "--allow-count-mismatch")
    assert code == 0, errors
    assert "turns of the test split with a relevant passage: 2 (neither of" in told
    assert len(load_dataset(out).turns("test")) == 2
    asked = len(server.requests)
    code, told, errors = run(*words, "--verify")
    assert code == 0, errors
    assert told.count("as recorded at its first download") == 3
    (raw / "passages.zip").write_bytes(b"damaged")
    code, _, errors = run(*words, "--verify")
    assert (code, "passages.zip: differs" in errors) == (2, True)
    (raw / "passages.zip").unlink()
    code, _, errors = run(*words, "--offline")
    assert (code, f"-> {raw / 'passages.zip'}" in errors) == (2, True)
    assert len(server.requests) == asked


DOWNLOAD = """
import sys
from pathlib import Path
from convsearch.data.catalogue import load_catalogue
from convsearch.data.download import fetch
fetch(load_catalogue(Path(sys.argv[1]))["topiocqa"].files, Path(sys.argv[2]))
"""


def test_a_killed_download_goes_on(server: FaultyFiles, tmp_path: Path, run: Run) -> None:
    catalogue = serve(server, write_topiocqa(tmp_path / "there"), "topiocqa", tmp_path / "c.json")
    name, stall = "topiocqa_train.json", threading.Event()
    served = server.files[name]
    served.drop_after, served.drops, served.stall = 1000, 1, stall
    raw = tmp_path / "raw"
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, str(catalogue), str(raw)])
    try:
        assert server.reached.wait(DEADLINE_S)
        part = raw / f".{name}.part"
        wait_until(lambda: part.is_file() and part.stat().st_size == 1000)
    finally:
        process.kill()
        process.wait()
        stall.set()
    assert not (raw / name).exists()
    words = ["topiocqa", "--out", tmp_path / "x", "--raw", raw, "--catalogue", catalogue]
    code, told, errors = run(*words, "--download-only")
    assert code == 0, errors
    assert told.count("as recorded at its first download") == 4
    assert told.count("recorded in downloads.lock.json now") == 1
    assert server.ranges(name)[-1] == "bytes=1000-"
    for path in (tmp_path / "there").iterdir():
        assert (raw / path.name).read_bytes() == path.read_bytes()
    assert [p.name for p in raw.iterdir() if ".part" in p.name] == []


def wait_until(holds: object) -> None:
    """Asks again and again, for a minute at most."""
    tick, left = threading.Event(), DEADLINE_S * 100
    while not holds():  # pyright: ignore[reportCallIssue]
        left -= 1
        assert left, "it never came true"
        tick.wait(0.01)


KILLED = """
import sys, time
from pathlib import Path
from raw_files import TOPIOCQA_COUNTS, kept, source
from convsearch.data import topiocqa
whole = topiocqa.{where}
def stuck(*arguments, **options):
    {body}
topiocqa.{where} = stuck
expected = kept(expected=tuple(TOPIOCQA_COUNTS.items()))
topiocqa.convert_topiocqa(source(Path(sys.argv[1])), Path(sys.argv[2]), expected)
"""
SLEEP = "print('ready', flush=True); time.sleep(600)"
MOMENTS = {
    "in the corpus": ("read_segments", f"yield next(whole(*arguments)); {SLEEP}"),
    "after the corpus": ("write_turns", SLEEP),
}


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_killed_conversion_starts_cleanly(tmp_path: Path, run: Run, moment: str) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    words = ["topiocqa", "--raw", raw, "--offline", *expects(TOPIOCQA_COUNTS)]
    assert run(*words, "--out", tmp_path / "unbroken")[0] == 0
    out = tmp_path / "out"
    where, body = MOMENTS[moment]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(where=where, body=body), str(raw), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    assert (tmp_path / "out.partial").is_dir()
    code, _, errors = run(*words, "--out", out)
    assert code == 0, errors
    assert contents(out) == contents(tmp_path / "unbroken")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw", "unbroken"]


def test_a_full_disk_is_a_sentence(tmp_path: Path, run: Run) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    words = ["topiocqa", "--raw", raw, "--offline", *expects(TOPIOCQA_COUNTS)]
    assert run(*words, "--out", tmp_path / "fine")[0] == 0
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, usual[1]))
    try:
        code, _, errors = run(*words, "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert code == 2
    assert "(File too large); make room" in errors
    assert not (tmp_path / "out").exists()
    assert run(*words, "--out", tmp_path / "out")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "fine")


def test_the_catalogue_is_in_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    program = "from convsearch.data.catalogue import load_catalogue as l; print(*sorted(l()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )  # fmt: skip
    catalogue = json.loads((ROOT / "data" / "downloads.json").read_text())
    assert done.stdout.split() == sorted(set(catalogue) - {"about"}), done.stderr
