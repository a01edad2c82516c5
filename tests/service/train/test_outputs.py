"""A training's output is kept, gone on with or refused by what it was made of, and that is said
before a trainer starts. The trainer itself is played here; `tests/e2e` runs it."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from grpo_case import grpo_settings, write_case
from tiny_model import make_tiny_model
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import ConfigError, RetrieverError, StageError
from convsearch.train import grpo, sft
from convsearch.train.grpo import run_grpo
from convsearch.train.grpo_settings import GrpoSettings
from convsearch.train.sft import SftSettings, run_sft
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.process import ServerProcess

GONE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    make_tiny_model(folder / "tiny")
    write_case(folder)
    build_bm25_index(folder / "corpus.jsonl", folder / "index")
    build_bm25_index(folder / "corpus.jsonl", folder / "other_index", k1=1.2)
    return folder


@pytest.fixture(scope="module")
def urls(case: Path) -> Iterator[dict[str, str]]:
    """Two servers of one index, and one of another."""
    with ServerProcess() as first, ServerProcess() as second, ServerProcess() as other:
        qrels = case / "qrels.trec"
        yield {
            "first": first.start(case / "index", qrels, case / "1.log"),
            "second": second.start(case / "index", qrels, case / "2.log"),
            "other": other.start(case / "other_index", qrels, case / "3.log"),
        }


@pytest.fixture
def starts(case: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Plays the trainer: leaves the last checkpoint. Grows by the command of each start."""
    commands: list[list[str]] = []

    def play(command: list[str], *, stage: str, **_: object) -> None:
        commands.append(command)
        told = dict(word.split("=", 1) for word in command if "=" in word)
        folder = Path(told["trainer.default_local_dir"].strip("'"))
        step = told.get("trainer.total_training_steps", "8")
        model = "actor/huggingface" if stage == "grpo" else "huggingface"
        shutil.copytree(case / "tiny", folder / f"global_step_{step}" / model)
        (folder / "latest_checkpointed_iteration.txt").write_text(step)

    monkeypatch.setattr(grpo, "run_logged", play)
    monkeypatch.setattr(sft, "run_logged", play)
    return commands


def train(settings: GrpoSettings, url: str, *, fresh: bool = False) -> Path:
    out = settings.out_dir
    return run_grpo(settings, url, out / "grpo.log", out / "metrics.jsonl", fresh=fresh)


def changed_copy(path: Path, folder: Path) -> Path:
    """A training file with one row less."""
    import pyarrow.parquet as pq

    made = folder / path.name
    pq.write_table(pq.read_table(path).slice(1), made)
    return made


def changed_model(model: Path, folder: Path) -> Path:
    made = shutil.copytree(model, folder / "model_of_other_content")
    config = made / "config.json"
    config.write_text(config.read_text() + "\n")
    return made


def test_a_finished_grpo_is_kept_by_what_made_it(
    case: Path, urls: dict[str, str], starts: list[list[str]], tmp_path: Path
) -> None:
    settings = replace(grpo_settings(case, total_steps=2, out="x"), out_dir=tmp_path / "out")
    model = train(settings, urls["first"])
    assert len(starts) == 1
    alike = [
        (settings, urls["first"]),
        (replace(settings, threads=3, time_limit_s=5.0, save_freq=7), urls["second"]),
        (replace(settings, model_path=shutil.copytree(case / "tiny", tmp_path / "copy")),
            urls["first"]),
    ]  # fmt: skip
    for one, url in alike:
        assert train(one, url) == model
    others: list[tuple[GrpoSettings, str, str]] = [
        (replace(settings, lr=1e-6), urls["first"], r"lr \(there 0\.001, now 1e-06\)"),
        (replace(settings, reward="reciprocal"), urls["first"], r"reward \(there 'piecewise', now"),
        (replace(settings, total_steps=400), urls["first"], r"total_steps \(there 2, now 400\)"),
        (replace(settings, seed=1), urls["first"], r"seed \(there 0, now 1\)"),
        (replace(settings, dump_rollouts=False), urls["first"], "dump_rollouts"),
        (replace(settings, val_file=settings.train_file), urls["first"], r"val_file \(there None"),
        (replace(settings, train_file=changed_copy(settings.train_file, tmp_path)), urls["first"],
            r"train_file \(there content \w{12}, now content"),
        (replace(settings, model_path=changed_model(case / "tiny", tmp_path)), urls["first"],
            r"model \(there content"),
        (settings, urls["other"], r"index\.fingerprint \(there content \w{12}, now content"),
        (replace(settings, lr=1e-6), GONE, r"lr \(there"),
    ]  # fmt: skip
    before = (tmp_path / "out" / "run.json").read_bytes()
    for one, url, sentence in others:
        with pytest.raises(ConfigError, match=rf"was made with other settings: .*{sentence}"):
            train(one, url)
    with pytest.raises(RetrieverError):
        train(settings, GONE)
    assert (tmp_path / "out" / "run.json").read_bytes() == before
    assert len(starts) == 1
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert train(replace(settings, lr=1e-6), urls["first"], fresh=True) == model
    assert len(starts) == 2
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["lr"] == 1e-6
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_an_interrupted_grpo_does_not_go_on_under_other_settings(
    case: Path, urls: dict[str, str], starts: list[list[str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = replace(grpo_settings(case, total_steps=4, out="x"), out_dir=tmp_path / "out")

    def broken(*_: object, **__: object) -> None:
        step = settings.out_dir / "checkpoints" / "global_step_2"
        step.mkdir(parents=True)
        step.with_name("latest_checkpointed_iteration.txt").write_text("2")
        raise StageError("grpo: killed")

    with monkeypatch.context() as breaking:
        breaking.setattr(grpo, "run_logged", broken)
        with pytest.raises(StageError):
            train(settings, urls["first"])
    checks: list[tuple[Callable[[], Path], str]] = [
        (lambda: train(replace(settings, lr=1e-6), urls["first"]), r"lr \(there"),
        (lambda: train(settings, urls["other"]), r"index\.fingerprint"),
        (lambda: train(replace(settings, rollouts=8), GONE), r"rollouts \(there 4, now 8\)"),
    ]
    for attempt, sentence in checks:
        with pytest.raises(ConfigError, match=rf"was begun with other settings: .*{sentence}"):
            attempt()
    assert (settings.out_dir / "checkpoints" / "global_step_2").is_dir()
    with pytest.raises(ConfigError, match=r"2 steps are done, and 1 asked for; take 2 or more"):
        train(replace(settings, total_steps=1), urls["first"])
    assert starts == []
    train(replace(settings, total_steps=6), urls["second"])
    assert len(starts) == 1
    assert not (settings.out_dir / "attempt.json").exists()


def test_steps_cannot_be_added_to_a_rate_that_falls_to_the_last_one(
    case: Path, urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = grpo_settings(case, total_steps=4, out="x")
    settings = replace(settings, out_dir=tmp_path / "out", lr_schedule="cosine")

    def broken(*_: object, **__: object) -> None:
        raise StageError("grpo: killed")

    monkeypatch.setattr(grpo, "run_logged", broken)
    with pytest.raises(StageError):
        train(settings, urls["first"])
    with pytest.raises(ConfigError, match=r"total_steps \(there 4, now 6\)"):
        train(replace(settings, total_steps=6), urls["first"])


def sft_settings(case: Path, out: Path) -> SftSettings:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "messages": [
                {"role": "user", "content": f"q {i}"},
                {"role": "assistant", "content": f"a {i}"},
            ]
        }
        for i in range(8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), case / "sft.parquet")
    return SftSettings(
        model_path=case / "tiny",
        train_file=case / "sft.parquet",
        out_dir=out,
        epochs=8,
        batch=8,
        micro_batch=8,
        nproc=1,
        device="cpu",
        dtype="float32",
    )


def test_a_fine_tuning_is_kept_or_refused_in_the_same_way(
    case: Path, starts: list[list[str]], tmp_path: Path
) -> None:
    settings = sft_settings(case, tmp_path / "out")
    model = run_sft(settings, tmp_path / "log")
    assert run_sft(replace(settings, threads=2), tmp_path / "log") == model
    assert len(starts) == 1
    for change, sentence in (
        ({"epochs": 2}, r"epochs \(there 8, now 2\)"),
        ({"lr": 2e-5}, r"lr \(there 1e-05, now 2e-05\)"),
        ({"val_file": settings.train_file}, "val_file"),
        ({"model_path": changed_model(case / "tiny", tmp_path)}, "model "),
    ):
        with pytest.raises(ConfigError, match=rf"was made with other settings: .*{sentence}"):
            run_sft(replace(settings, **change), tmp_path / "log")
    with pytest.raises(ConfigError, match=r"tells of what another command made \(sft\), not grpo"):
        train(replace(grpo_settings(case, total_steps=1, out="x"), out_dir=tmp_path / "out"), GONE)
    passport = tmp_path / "out" / "run.json"
    record = json.loads(passport.read_text())
    del record["made_of"]
    passport.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"cannot be told\. Start over with --fresh"):
        run_sft(settings, tmp_path / "log")
    assert run_sft(settings, tmp_path / "log", fresh=True) == model
    assert len(starts) == 2


def test_the_commands_say_what_differs_and_take_fresh(
    case: Path, urls: dict[str, str], starts: list[list[str]], tmp_path: Path
) -> None:
    def call(*more: str) -> str:
        words = [
            "grpo", "--model", str(case / "tiny"), "--train-file", str(case / "grpo.parquet"),
            "--out", str(tmp_path / "out"), "--retriever-url", urls["first"], "--device", "cpu",
            "--prompts-per-step", "4", "--rollouts", "4", "--total-steps", "2", *more,
        ]  # fmt: skip
        result = CliRunner().invoke(app, words)
        return result.output + str(result.exception or "")

    assert "trained model" in call()
    assert "lr (there 1e-06, now 0.1)" in call("--lr", "0.1")
    assert len(starts) == 1
    assert "trained model" in call("--lr", "0.1", "--fresh")
    assert len(starts) == 2
