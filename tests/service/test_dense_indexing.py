"""Building dense indexes: a kill costs one shard, and several processes make what one makes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_corpus import make_tiny_sentence_model, random_passages, write_corpus

from convsearch.errors import ConfigError
from convsearch.passport import sha256_of
from retriever_server.dense.forecast import Forecast
from retriever_server.indexing.dense import build_dense_index

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, signal, sys
from pathlib import Path
from retriever_server.indexing.dense import build_dense_index
folder, out, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def progress(done, total):
    print("did", done, flush=True)
    if done >= kill_at > 0:
        os.kill(os.getpid(), signal.SIGKILL)
build_dense_index(folder / "corpus.jsonl", out, encoder_path=folder / "encoder", batch_size=1,
                  shard_rows=100, on_progress=progress)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder`, `corpus.jsonl`, `program.py` and an unbroken `index`."""
    folder = tmp_path_factory.mktemp("indexing")
    make_tiny_sentence_model(folder / "encoder")
    write_corpus(folder, random_passages(430))
    (folder / "program.py").write_text(PROGRAM)
    assert _run(folder, folder / "index", 0).returncode == 0
    return folder


def _run(world: Path, out: Path, kill_at: int, *launcher: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, str(world / "program.py"), str(world), str(out)]
    return subprocess.run(
        [*command, str(kill_at)], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT,
    )  # fmt: skip


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


def test_a_killed_run_goes_on_at_the_last_whole_shard(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    assert _run(world, out, 250).returncode == -signal.SIGKILL
    assert not out.exists()
    assert _run(world, out, 150).returncode == -signal.SIGKILL
    finished = sorted(path.name for path in (tmp_path / "index.partial/vectors").glob("*.json"))
    assert finished == [f"0000{number}.json" for number in range(3)]
    ended = _run(world, out, 0)
    assert ended.returncode == 0, ended.stderr
    assert "did 130" in ended.stdout
    assert "did 131" not in ended.stdout, "finished shards are not made again"
    assert _vectors(out) == _vectors(world / "index")
    assert sha256_of(out / "manifest.json") == sha256_of(world / "index" / "manifest.json")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_other_settings_are_refused(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    _run(world, out, 150)
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


def test_torchrun_with_two_processes_makes_the_same_index(world: Path, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    ended = _run(world, tmp_path / "index", 0, *launcher)
    assert ended.returncode == 0, ended.stderr
    assert "did 200" in ended.stdout, "the first two shards"
    assert "did 230" in ended.stdout, "and the other three"
    assert "did 231" not in ended.stdout
    assert _vectors(tmp_path / "index") == _vectors(world / "index")
