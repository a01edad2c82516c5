"""The runner: one record for every turn, resumable, and never under other settings."""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rewriting import PARAMS, some_turns

from convsearch.errors import ConfigError, DataError, EngineError, WriteError
from convsearch.files import read_rewrites
from convsearch.infer import Generation, SamplingParams, infer_rewrites
from convsearch.infer.echo_engine import EchoEngine
from convsearch.infer.journal import journal_path, passport_path
from convsearch.infer.runner import count_statuses
from convsearch.prompts import asked_question, format_response
from convsearch.types import ChatMessage, derive_seed


class ScriptedEngine:
    """Answers as told; remembers the batches that it was given."""

    def __init__(self, *, dies_at: int | None = None, failing: Sequence[str] = ()) -> None:
        self.identity: Mapping[str, str | int | float | None] = {"engine": "scripted"}
        self.batches: list[list[str]] = []
        self.seeds: list[int] = []
        self._dies_at = dies_at
        self.failing = set(failing)

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        if len(self.batches) == self._dies_at:
            raise EngineError("the engine broke; start it again")
        questions = [asked_question(chat) for chat in chats]
        self.batches.append(questions)
        self.seeds += seeds
        return [self._answer(q, seed) for q, seed in zip(questions, seeds, strict=True)]

    def _answer(self, question: str, seed: int) -> Generation:
        if question in self.failing:
            return Generation(error="no answer within 1 s")
        if seed % 3 == 0:
            return Generation(text=f"{question}, but without tags", num_tokens=3)
        return Generation(text=format_response(f"seed {seed}", question), num_tokens=3)

    def close(self) -> None: ...


def run(engine, out: Path, *, num_turns: int = 10, seed: int = 1, params=PARAMS, **options):
    return infer_rewrites(
        some_turns(num_turns),
        engine,
        out_path=out,
        style=options.pop("style", "nano"),
        params=params,
        seed=seed,
        batch_size=options.pop("batch_size", 4),
        **options,
    )


def test_every_turn_gives_a_record_and_failure_is_a_value(tmp_path: Path):
    questions = [turn.question for turn in some_turns(10)]
    out = tmp_path / "rewrites.jsonl"
    rewrites = run(ScriptedEngine(failing=questions[2:4]), out, candidates=3)
    assert [(r.qid, r.candidate) for r in rewrites] == [
        (f"q{i}", c) for i in range(10) for c in range(3)
    ]
    counts = count_statuses(rewrites)
    assert counts["rewrites"] == 30 == counts["ok"] + counts["malformed"] + counts["failed"]
    assert counts["failed"] == 6
    assert counts["malformed"] > 0
    for r in rewrites:
        assert r.seed == derive_seed(1, r.qid, r.candidate)
        assert (r.status == "ok") == (r.text is not None)
        assert (r.status == "failed") == (r.error is not None)
    assert read_rewrites(out) == rewrites
    passport = json.loads(passport_path(out).read_text())
    assert passport["counts"] == counts
    assert passport["settings"]["engine"] == {"engine": "scripted"}


def test_an_engine_that_breaks_leaves_whole_blocks_and_no_result(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    with pytest.raises(EngineError):
        run(ScriptedEngine(dies_at=2), out)
    assert not out.exists()
    assert not passport_path(out).exists()
    rest = ScriptedEngine()
    rewrites = run(rest, out)
    assert [len(batch) for batch in rest.batches] == [2]  # two blocks of four were kept
    assert rewrites == run(ScriptedEngine(), tmp_path / "unbroken.jsonl")


def test_a_block_that_is_not_whole_is_made_again(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    with pytest.raises(EngineError):
        run(ScriptedEngine(dies_at=2), out)
    lines = journal_path(out).read_bytes().splitlines(keepends=True)
    journal_path(out).write_bytes(b"".join(lines[:-1]))
    rest = ScriptedEngine()
    run(rest, out)
    assert [len(batch) for batch in rest.batches] == [4, 2]


def test_a_finished_run_is_returned_as_it_is(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    first = run(ScriptedEngine(), out)
    before = out.read_bytes()
    idle = ScriptedEngine()
    assert run(idle, out) == first
    assert idle.batches == []
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "seed"),
        ({"params": SamplingParams(temperature=0.1, top_p=0.95, max_tokens=24)}, "temperature"),
        ({"style": "instruct"}, "style"),
        ({"num_turns": 9}, "prompts_sha256"),
        ({"candidates": 2}, "candidates"),
        ({"batch_size": 5}, "batch_size"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_by_name(
    change: dict, named: str, finished: bool, tmp_path: Path
):
    out = tmp_path / "rewrites.jsonl"
    if finished:
        run(ScriptedEngine(), out)
    else:
        with pytest.raises(EngineError):
            run(ScriptedEngine(dies_at=1), out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=rf"rewrites\.jsonl.*{named}.*--fresh"):
        run(ScriptedEngine(), out, **change)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    fresh = run(ScriptedEngine(), out, fresh=True, **change)
    assert read_rewrites(out) == fresh


def test_another_engine_is_other_settings(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    run(ScriptedEngine(), out)
    with pytest.raises(ConfigError, match=r"scripted.*echo"):
        run(EchoEngine(), out)


def test_a_file_of_unknown_origin_is_not_written_over(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    out.write_text("someone's work\n")
    with pytest.raises(ConfigError, match=r"rewrites\.run\.json beside it does not say"):
        run(ScriptedEngine(), out)
    assert out.read_text() == "someone's work\n"


def test_failed_records_are_asked_again_on_request_only_and_malformed_never(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    questions = [turn.question for turn in some_turns(10)]
    first = run(ScriptedEngine(failing=questions[2:4]), out)
    again = ScriptedEngine()
    assert run(again, out) == first
    assert again.batches == []
    retried = run(again, out, retry_failed=True)
    assert again.batches == [questions[2:4]]
    assert again.seeds == [derive_seed(1, "q2"), derive_seed(1, "q3")]
    assert count_statuses(retried)["failed"] == 0
    kept = [(a, b) for a, b in zip(first, retried, strict=True) if a.status != "failed"]
    assert len(kept) == 8
    assert all(a == b for a, b in kept)
    assert "malformed" in {a.status for a, _ in kept}
    assert read_rewrites(out) == retried == run(ScriptedEngine(), tmp_path / "unbroken.jsonl")


def test_a_retry_that_breaks_loses_nothing(tmp_path: Path):
    out = tmp_path / "rewrites.jsonl"
    questions = [turn.question for turn in some_turns(10)]
    first = run(ScriptedEngine(failing=questions[2:4]), out)
    with pytest.raises(EngineError):
        run(ScriptedEngine(dies_at=0), out, retry_failed=True)
    assert read_rewrites(out) == first
    assert run(ScriptedEngine(), out) == first


def test_half_a_surrogate_pair_can_be_written(tmp_path: Path):
    class Odd(ScriptedEngine):
        def _answer(self, question: str, seed: int) -> Generation:
            return Generation(text=format_response("\ud83d", "a \udc00 b"))

    rewrites = run(Odd(), tmp_path / "rewrites.jsonl")
    assert rewrites[0].text == "a ? b"
    assert read_rewrites(tmp_path / "rewrites.jsonl") == rewrites


def test_engines_that_lose_answers_are_refused(tmp_path: Path):
    class Short(ScriptedEngine):
        def generate(self, chats, params, seeds):
            return super().generate(chats, params, seeds)[1:]

    with pytest.raises(EngineError, match="3 answers to 4 prompts"):
        run(Short(), tmp_path / "rewrites.jsonl")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"candidates": 0}, "candidates"), ({"batch_size": 0}, "batch_size"), ({"shots": 1}, "shots")],
)
def test_impossible_numbers_are_refused(options: dict, said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        run(ScriptedEngine(), tmp_path / "rewrites.jsonl", **options)
    assert list(tmp_path.iterdir()) == []


def test_no_turns_and_repeated_turns_are_refused(tmp_path: Path):
    for turns, said in (([], "no turns"), (some_turns(2) * 2, "'q0' occurs twice")):
        with pytest.raises(DataError, match=said):
            infer_rewrites(
                turns,
                EchoEngine(),
                out_path=tmp_path / "r.jsonl",
                style="nano",
                params=PARAMS,
                seed=0,
            )


@pytest.mark.parametrize(
    "values",
    [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"max_tokens": 0}],
)
def test_sampling_outside_its_range_is_refused(values: dict):
    with pytest.raises(ConfigError, match=next(iter(values))):
        SamplingParams(**values)


@pytest.mark.parametrize("style", ["nano", "instruct"])
def test_echo_repeats_the_question(style: str, tmp_path: Path):
    turns = some_turns(4)
    rewrites = run(EchoEngine(), tmp_path / "r.jsonl", num_turns=4, style=style)
    assert [r.text for r in rewrites] == [turn.question for turn in turns]
    assert all(r.status == "ok" for r in rewrites)


def test_echo_is_well_formed_whatever_the_question():
    chats = [
        [{"role": "user", "content": f"Q: {q}"}] for q in ("<rewrite> a", "<think>", "</think>b")
    ]
    texts = [g.text for g in EchoEngine().generate(chats, PARAMS, [0, 1, 2])]
    assert [t.rpartition("<rewrite>")[2] for t in texts] == [
        "a</rewrite>",
        "?</rewrite>",
        "b</rewrite>",
    ]


def test_a_disk_that_fills_up_while_a_retry_begins_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "rewrites.jsonl"
    questions = [turn.question for turn in some_turns(10)]
    first = run(ScriptedEngine(failing=questions[2:4]), out)
    monkeypatch.setattr("convsearch.infer.runner.COPIED_RECORDS", 4)
    real, calls = os.pwrite, 0

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(WriteError, match="No space left"):
            run(ScriptedEngine(), out, retry_failed=True)
    idle = ScriptedEngine()
    assert run(idle, out) == first
    assert idle.batches == []
    assert count_statuses(run(ScriptedEngine(), out, retry_failed=True))["failed"] == 0


def test_a_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        infer_rewrites(
            some_turns(2), EchoEngine(), out_path=tmp_path, style="plain", params=PARAMS, seed=0
        )
    assert list(tmp_path.iterdir()) == []
