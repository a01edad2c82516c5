"""Building dense indexes: a kill costs one shard, and several processes make what one makes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening_sockets import SocketWatch
from small_corpus import make_tiny_sentence_model, random_passages, write_corpus

from convsearch.errors import ConfigError
from convsearch.listening import is_loopback
from convsearch.passport import sha256_of
from retriever_server.dense.forecast import Forecast
from retriever_server.indexing.dense import build_dense_index

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, signal, sys
from pathlib import Path
from retriever_server.indexing.dense import build_dense_index

def build(folder, out, kill_at):
    def progress(done, total):
        print("did", done, flush=True)
        if done >= kill_at > 0:
            os.kill(os.getpid(), signal.SIGKILL)
    build_dense_index(folder / "corpus.jsonl", out, encoder_path=folder / "encoder", batch_size=1,
                      shard_rows=100, on_progress=progress)

if sys.argv[2:]:
    build(Path(sys.argv[1]), Path(sys.argv[2]), 0)
    sys.exit()
# without a place for the index: a process of its own for each line of standard input, forked, since
# most of such a run are imports
import retriever_server.backends.sentence
for line in sys.stdin:
    out, kill_at, log = line.split()
    if (child := os.fork()) == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 1)
        build(Path(sys.argv[1]), Path(out), int(kill_at))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Builds:
    """Runs of the program, one process each."""

    def __init__(self, world: Path) -> None:
        self.world = world
        self._parent = subprocess.Popen(
            [sys.executable, str(world / "program.py"), str(world)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, out: Path, kill_at: int = 0) -> tuple[int, str]:
        """Exit code and standard output of a build that ends itself at so many passages."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        log = out.with_suffix(".log")
        self._parent.stdin.write(f"{out} {kill_at} {log}\n")
        self._parent.stdin.flush()
        code = int(self._parent.stdout.readline())
        said = log.read_text()
        log.unlink()
        return code, said

    def close(self) -> None:
        self._parent.communicate(timeout=60)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builds]:
    """Over a folder with `encoder`, `corpus.jsonl`, `program.py` and an unbroken `index`."""
    folder = tmp_path_factory.mktemp("indexing")
    make_tiny_sentence_model(folder / "encoder")
    write_corpus(folder, random_passages(430))
    (folder / "program.py").write_text(PROGRAM)
    builds = Builds(folder)
    assert builds.run(folder / "index")[0] == 0
    yield builds
    builds.close()


@pytest.fixture(scope="module")
def world(builds: Builds) -> Path:
    return builds.world


def _vectors(index: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted((index / "vectors").iterdir())}


def test_an_index_holds_whole_shards_and_nothing_of_the_making(world: Path) -> None:
    names = [path.name for path in sorted((world / "index" / "vectors").iterdir())]
    shards = [f"0000{number}.npy" for number in range(5)]
    assert names == [*shards, "extents.npy", "mean.npy", "vectors.json"]
    assert not (world / "index.partial").exists()
    assert {path.name for path in (world / "index").iterdir()}.isdisjoint(
        {"job.json", "lock", "stored.json"}
    )
    manifest = json.loads((world / "index" / "vectors" / "vectors.json").read_text())
    assert [shard["rows"] for shard in manifest["shards"]] == [100, 100, 100, 100, 30]


def test_a_killed_run_goes_on_at_the_last_whole_shard(builds: Builds, tmp_path: Path) -> None:
    out, world = tmp_path / "index", builds.world
    assert builds.run(out, 250)[0] == -signal.SIGKILL
    assert not out.exists()
    assert builds.run(out, 150)[0] == -signal.SIGKILL
    finished = sorted(path.name for path in (tmp_path / "index.partial/vectors").glob("*.json"))
    assert finished == [f"0000{number}.json" for number in range(3)]
    code, said = builds.run(out)
    assert code == 0
    assert "did 130" in said
    assert "did 131" not in said, "finished shards are not made again"
    assert _vectors(out) == _vectors(world / "index")
    assert sha256_of(out / "manifest.json") == sha256_of(world / "index" / "manifest.json")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_other_settings_are_refused(builds: Builds, tmp_path: Path) -> None:
    out, world = tmp_path / "index", builds.world
    assert builds.run(out, 150)[0] == -signal.SIGKILL
    with pytest.raises(ConfigError, match="begun with dtype = 'bfloat16', now 'float16'"):
        build_dense_index(
            world / "corpus.jsonl", out, encoder_path=world / "encoder", batch_size=1,
            shard_rows=100, dtype="float16",
        )  # fmt: skip
    assert (tmp_path / "index.partial" / "vectors" / "00000.npy").is_file()


def test_the_forecast_comes_before_the_first_passage(world: Path, tmp_path: Path) -> None:
    said: list[object] = []
    build_dense_index(
        world / "corpus.jsonl", tmp_path / "index", encoder_path=world / "encoder",
        on_forecast=said.append, on_progress=lambda done, total: said.append((done, total)),
    )  # fmt: skip
    assert isinstance(said[0], Forecast)
    assert said[0].num_passages == 430
    assert said[-1] == (430, 430)


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")


@pytest.mark.parametrize("is_private", [False, True])
def test_torchrun_with_two_processes_makes_the_same_index(
    world: Path, tmp_path: Path, is_private: bool
) -> None:
    private = (sys.executable, "-m", "convsearch.train.one_machine", sys.executable, *TORCHRUN)
    plain = (sys.executable, *TORCHRUN, "--standalone")
    arguments = map(str, (world / "program.py", world, tmp_path / "index"))
    with SocketWatch("TEST_RUN", str(tmp_path)) as watch:
        ended = subprocess.run(
            [*(private if is_private else plain), *arguments],
            capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TEST_RUN": str(tmp_path)},
        )  # fmt: skip
    assert watch.seen
    if is_private:  # as scripts/_build_index.sh starts it
        assert [each for each in sorted(watch.seen) if not is_loopback(each[0])] == []
    assert ended.returncode == 0, ended.stderr
    assert "did 200" in ended.stdout, "the first two shards"
    assert "did 230" in ended.stdout, "and the other three"
    assert "did 231" not in ended.stdout
    assert _vectors(tmp_path / "index") == _vectors(world / "index")
