"""Engines in processes of their own, with faults: killed, hanging, refusing, ended at once."""

import functools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from faulty_engine import Faults, open_faulty_engine
from rewriting import some_turns

from convsearch.errors import CheckpointError, ConfigError, EngineError
from convsearch.files import read_rewrites
from convsearch.infer import Block, BlockEngine, Plan, SamplingParams, infer_to_file, open_engine
from convsearch.infer.gpus import gpu_groups
from convsearch.infer.journal import journal_path
from convsearch.infer.pool import FALSE_STARTS, EnginePool, PoolSettings
from convsearch.prompts import rewrite_messages
from convsearch.types import Turn

TURNS = some_turns(24)
PARAMS = SamplingParams(temperature=0.9, max_tokens=24)


@contextmanager
def pool(faults: Faults, **settings) -> Iterator[EnginePool]:
    """No process of the pool is alive afterwards."""
    opened = EnginePool(
        functools.partial(open_faulty_engine, faults),
        PoolSettings(**{"workers": 2, "uses_gpus": False, **settings}),
    )
    pids: set[int] = set(opened.pids)
    try:
        yield opened
        pids |= set(opened.pids)
    finally:
        opened.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def marked(turns: list[Turn], *marks: tuple[int, str]) -> list[Turn]:
    """The turns with words in some questions."""
    words = dict(marks)
    return [
        Turn(**{**vars(t), "question": f"{t.question} {words[i]}"}) if i in words else t
        for i, t in enumerate(turns)
    ]


def plan_of(turns: list[Turn]) -> Plan:
    return Plan(turns=turns, style="nano", params=PARAMS, seed=1)


def run(engine: EnginePool, turns: list[Turn], out: Path, batch_size: int = 4) -> dict[str, int]:
    return infer_to_file(plan_of(turns), engine, out_path=out, batch_size=batch_size)


def blocks_of(folder: Path) -> list[tuple[int, int]]:
    lines = (folder / "blocks.txt").read_text().splitlines()
    return [(int(pid), int(count)) for pid, count, _ in map(str.split, lines)]


def test_engines_pull_from_one_queue_and_the_output_is_in_order(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    with pool(Faults(folder=tmp_path)) as engine:
        assert isinstance(engine, BlockEngine)
        assert engine.identity == {"engine": "echo"}
        chats = [rewrite_messages(turn, "nano") for turn in TURNS[:5]]
        expected = open_engine("echo").generate(chats, PARAMS, range(5))
        assert engine.generate(chats, PARAMS, range(5)) == expected
        assert engine.generate(chats[:1], PARAMS, [0]) == expected[:1]
        assert engine.generate([], PARAMS, []) == []
        (tmp_path / "blocks.txt").unlink()
        assert run(engine, TURNS, out)["ok"] == 24
    assert Counter(count for _, count in blocks_of(tmp_path)) == {4: 6}
    assert [r.qid for r in read_rewrites(out)] == [t.qid for t in TURNS]
    single = tmp_path / "single.jsonl"
    infer_to_file(plan_of(TURNS), open_engine("echo"), out_path=single, batch_size=4)
    assert single.read_bytes() == out.read_bytes()


def test_a_block_is_taken_only_when_an_engine_is_free(tmp_path: Path):
    taken = 0

    def blocks() -> Iterator[Block]:
        nonlocal taken
        for turn in TURNS:
            taken += 1
            yield Block(chats=[rewrite_messages(turn, "nano")], seeds=[0])

    with pool(Faults(folder=tmp_path)) as engine:
        for answered, _ in enumerate(engine.generate_blocks(blocks(), PARAMS), 1):
            assert taken <= answered + 2
    assert taken == 24


def test_a_killed_engine_is_replaced_and_its_block_made_again(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    turns = marked(TURNS, (5, "amok"))
    with pool(Faults(folder=tmp_path, kills_once="amok")) as engine:
        before = set(engine.pids)
        assert run(engine, turns, out) == {"rewrites": 24, "ok": 24, "malformed": 0, "failed": 0}
        assert len(set(engine.pids) - before) == 1
    assert [r.qid for r in read_rewrites(out)] == [t.qid for t in turns]
    assert Counter(count for _, count in blocks_of(tmp_path)) == {4: 7}  # one of them twice


def test_idle_engines_may_be_killed_too(tmp_path: Path):
    with pool(Faults(folder=tmp_path)) as engine:
        run(engine, TURNS, tmp_path / "first.jsonl")
        for pid in engine.pids:
            os.kill(pid, signal.SIGKILL)
        assert run(engine, TURNS, tmp_path / "second.jsonl")["ok"] == 24


@pytest.mark.parametrize("fault", ["kills", "raises"])
def test_a_prompt_that_ends_engines_fails_alone(fault: str, tmp_path: Path, capfd):
    out = tmp_path / "rewrites.jsonl"
    turns = marked(TURNS, (6, "amok"))
    faults = Faults(folder=tmp_path, garbles="zephyr", **{fault: "amok"})
    with pool(faults) as engine:
        counts = run(engine, turns, out, batch_size=8)
    records = read_rewrites(out)
    assert [r.qid for r in records] == [t.qid for t in turns]
    assert counts["failed"] == 1
    assert counts["malformed"] == sum("zephyr" in t.question for t in turns) > 0
    assert records[6].error is not None
    assert "engines end on this prompt" in records[6].error
    assert ("signal 9" if fault == "kills" else "code 1") in records[6].error
    assert (records[6].text, records[6].response) == (None, "")
    assert ("nobody expects this" in capfd.readouterr().err) == (fault == "raises")


def test_engines_that_answer_nothing_are_no_fault_of_the_prompts(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    turns = marked(TURNS[:2], (0, "amok"), (1, "amok"))
    faults = Faults(folder=tmp_path, kills="amok")
    with pool(faults) as engine, pytest.raises(EngineError, match="every prompt"):
        run(engine, turns, out, batch_size=1)
    assert not out.exists()
    assert not journal_path(out).exists()  # there was no record in it


def test_the_number_of_restarts_is_bounded_and_finished_work_kept(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    turns = marked(TURNS, (21, "amok"))
    with (
        pool(Faults(folder=tmp_path, kills="amok"), max_restarts=1) as engine,
        pytest.raises(EngineError, match=r"ended 2 times .*signal 9.*run the same command again"),
    ):
        run(engine, turns, out)
    assert len(journal_path(out).read_text().splitlines()) == 1 + 20
    with pool(Faults(folder=tmp_path)) as engine:
        assert run(engine, turns, out)["ok"] == 24
    assert not journal_path(out).exists()


def test_a_hanging_engine_is_ended_at_its_deadline(tmp_path: Path):
    turns = marked(TURNS[:8], (1, "sleepy"))
    with pool(Faults(folder=tmp_path, hangs_once="sleepy"), deadline_s=1.0) as engine:
        assert run(engine, turns, tmp_path / "rewrites.jsonl")["ok"] == 8


def test_a_parent_that_is_killed_leaves_no_engine(tmp_path: Path):
    program = f"""
import functools
from pathlib import Path
from faulty_engine import Faults, open_faulty_engine
from convsearch.infer import SamplingParams
from convsearch.infer.pool import EnginePool, PoolSettings
faults = Faults(folder=Path({str(tmp_path)!r}), hangs_once="amok")
opener = functools.partial(open_faulty_engine, faults)
pool = EnginePool(opener, PoolSettings(workers=2, uses_gpus=False))
print(*pool.pids, flush=True)
chats = [[dict(role="user", content="Q: " + word)] for word in ("amok", "so")]
pool.generate(chats, SamplingParams(), [0, 0])
"""
    here = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        engines = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        while not (tmp_path / "hang").exists():
            assert parent.poll() is None
        parent.kill()
    assert len(engines) == 2
    _, alive = psutil.wait_procs(engines, timeout=20)
    assert alive == []


def test_an_engine_that_refuses_stops_the_run_with_its_sentence(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    turns = marked(TURNS, (13, "amok"))
    with pool(Faults(folder=tmp_path, refuses="amok")) as engine:
        with pytest.raises(EngineError, match="the checkpoint is damaged"):
            run(engine, turns, out)
        assert run(engine, TURNS, tmp_path / "other.jsonl")["ok"] == 24  # the pool is of use still


def test_engines_that_end_before_they_are_open(tmp_path: Path):
    with pool(Faults(folder=tmp_path, dies_when_opened=FALSE_STARTS - 1), workers=1) as engine:
        assert run(engine, TURNS, tmp_path / "rewrites.jsonl")["ok"] == 24
    for marker in tmp_path.glob("opened-*"):
        marker.unlink()
    with pytest.raises(EngineError, match=f"ended {FALSE_STARTS} times before they were open"):
        EnginePool(
            functools.partial(
                open_faulty_engine, Faults(folder=tmp_path, dies_when_opened=FALSE_STARTS)
            ),
            PoolSettings(workers=1, uses_gpus=False),
        )


def test_what_cannot_be_opened_is_said_here_and_no_process_stays(tmp_path: Path):
    children = set(psutil.Process().children())
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        EnginePool(
            functools.partial(open_engine, "transformers", str(tmp_path)), PoolSettings(workers=2)
        )
    assert set(psutil.Process().children()) <= children


def test_real_models_in_two_processes_give_the_bytes_of_one(tmp_path: Path, taught_model: Path):
    plan = Plan(turns=TURNS[:6], style="nano", params=PARAMS, seed=1, candidates=2)
    single, shared = tmp_path / "single.jsonl", tmp_path / "shared.jsonl"
    opener = functools.partial(open_engine, "transformers", str(taught_model), device="cpu")
    infer_to_file(plan, opener(), out_path=single, batch_size=3)
    engine = EnginePool(opener, PoolSettings(workers=2, uses_gpus=False))
    try:
        os.kill(engine.pids[1], signal.SIGKILL)  # while it loads its model
        infer_to_file(plan, engine, out_path=shared, batch_size=3)
    finally:
        engine.close()
    assert shared.read_bytes() == single.read_bytes()


def test_each_engine_sees_its_own_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("convsearch.infer.gpus._DRIVER", tmp_path / "none")
    assert gpu_groups(2, 2) == ["0,1", "2,3"]
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("convsearch.infer.gpus._DRIVER", tmp_path)
    assert gpu_groups(3, 1) == ["0", "1", "2"]
    with pytest.raises(ConfigError, match=r"need 4 and this machine has 3"):
        gpu_groups(2, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_groups(2, 1) == ["", ""]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,GPU-7")
    assert gpu_groups(3, 1) == ["4", "6", "GPU-7"]
    with pytest.raises(ConfigError, match="names 3"):
        gpu_groups(2, 2)
    with pool(Faults(folder=tmp_path), uses_gpus=True) as engine:
        run(engine, TURNS, tmp_path / "rewrites.jsonl", batch_size=1)
    lines = (tmp_path / "blocks.txt").read_text().splitlines()
    assert {line.split()[2] for line in lines} <= {"4", "6"}


@pytest.mark.parametrize(
    "values",
    [{"workers": 0}, {"gpus_per_worker": 0}, {"max_restarts": -1}, {"deadline_s": 0.0}],
)
def test_impossible_settings_are_refused(values: dict):
    with pytest.raises(ConfigError):
        PoolSettings(**{"workers": 1, **values})
