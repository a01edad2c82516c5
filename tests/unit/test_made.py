"""What lies where a command writes: kept, gone on with, or refused in words."""

import json
from pathlib import Path

import pytest

from convsearch.errors import ConfigError
from convsearch.made import Output, content_of, differences, fingerprint
from convsearch.passport import write_passport


def output(folder: Path, command: str = "grpo", **made_of: object) -> Output:
    return Output(
        passport=folder / "run.json",
        command=command,
        made_of={"lr": 1e-6, "sampling": {"temperature": 0.7}, **made_of},
        results=("model",),
        traces=("checkpoints",),
    )


def finish(made: Output, *, fresh: bool = False) -> None:
    made.begin(fresh=fresh)
    (made.passport.parent / "model").mkdir()
    (made.passport.parent / "model" / "weights").write_text("w")
    write_passport(made.passport, stage=made.command, settings={}, made=made.record)
    made.end()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_the_same_is_kept_and_another_is_refused_with_both_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    finish(output(tmp_path))
    assert output(tmp_path).standing() == "finished"
    assert f"{tmp_path}: kept: made by the same settings" in caplog.text
    before = files(tmp_path)
    sentence = (
        r"was made with other settings: lr \(there 1e-06, now 2e-06\); "
        r"sampling\.temperature \(there 0\.7, now 1\)\. Start over with --fresh, or name another"
    )
    with pytest.raises(ConfigError, match=sentence):
        output(tmp_path, lr=2e-6, sampling={"temperature": 1}).standing()
    assert files(tmp_path) == before
    assert output(tmp_path, lr=2e-6).standing(fresh=True) == "absent"


def test_an_interrupted_one_goes_on_under_the_same_settings_alone(tmp_path: Path) -> None:
    output(tmp_path).begin()
    (tmp_path / "checkpoints").mkdir()
    assert output(tmp_path).standing() == "unfinished"
    with pytest.raises(ConfigError, match=r"was begun with other settings: lr .*--fresh"):
        output(tmp_path, lr=1).standing()
    assert output(tmp_path, lr=1).standing(free=["lr"]) == "unfinished"
    with pytest.raises(ConfigError, match=r"seed \(there not told, now 3\)"):
        output(tmp_path, seed=3).standing()


def test_a_result_that_is_gone_is_made_again(tmp_path: Path) -> None:
    finish(output(tmp_path))
    (tmp_path / "model" / "weights").unlink()
    (tmp_path / "model").rmdir()
    assert output(tmp_path).standing() == "absent"


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["run.json", "attempt.json"])
def test_what_another_command_made_is_never_written_over(
    tmp_path: Path, name: str, fresh: bool
) -> None:
    (tmp_path / name).write_text(json.dumps({"stage": "distill", "settings": {}}))
    with pytest.raises(ConfigError, match=rf"{name}: tells of what another command made \(distill"):
        output(tmp_path).standing(fresh=fresh)
    (tmp_path / name).write_text("[]")
    with pytest.raises(ConfigError, match="no passport that can be read"):
        output(tmp_path).standing(fresh=fresh)


def test_of_an_older_one_it_is_said_that_it_cannot_be_told(tmp_path: Path) -> None:
    write_passport(tmp_path / "run.json", stage="grpo", settings={"lr": 1e-6})
    (tmp_path / "model").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot be told\. Start over with --fresh"):
        output(tmp_path).standing()
    assert output(tmp_path).standing(fresh=True) == "absent"
    output(tmp_path).begin(fresh=True)
    assert sorted(files(tmp_path)) == ["attempt.json", "notes.txt"]
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["model", "checkpoints"])
def test_files_that_nothing_proves_to_be_the_commands_are_refused(
    tmp_path: Path, name: str, fresh: bool
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=rf"{name}: exists, and run\.json beside it does not say"):
        output(tmp_path).standing(fresh=fresh)


def test_fresh_removes_what_was_listed_and_nothing_else(tmp_path: Path) -> None:
    folder, victim = tmp_path / "out", tmp_path / "victim"
    finish(output(folder))
    victim.write_text("mine")
    (folder / "mine.txt").write_text("mine")
    record = json.loads((folder / "run.json").read_text())
    record["files"] += ["../victim", str(victim), "."]
    (folder / "run.json").write_text(json.dumps(record))
    finish(output(folder, lr=1), fresh=True)
    assert set(files(folder)) == {"mine.txt", "model/weights", "run.json"}
    assert victim.read_text() == "mine"


def test_an_input_where_the_command_writes_is_refused(tmp_path: Path) -> None:
    made = Output(
        passport=tmp_path / "run.json", command="grpo", made_of={}, results=("model",),
        sources=[tmp_path / "model" / "part"],
    )  # fmt: skip
    with pytest.raises(ConfigError, match="is an input, and lies where grpo writes"):
        made.standing(fresh=True)


def test_files_with_a_passport_beside_them_are_outputs_too(tmp_path: Path) -> None:
    def prompts(split: str) -> Output:
        return Output(
            passport=tmp_path / "train.run.json", command="data prompts", made_of={"split": split},
            results=("train.parquet",),
        )  # fmt: skip

    made = prompts("train")
    made.begin()
    assert (tmp_path / "train.attempt.json").is_file()
    (tmp_path / "train.parquet").write_text("rows")
    write_passport(made.passport, stage="data prompts", settings={}, made=made.record)
    made.end()
    with pytest.raises(ConfigError, match=r"train\.parquet: was made with other .*split \(there"):
        prompts("dev").standing()


def test_content_counts_and_not_where_it_lies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / ".cache").mkdir(parents=True)
        (tmp_path / name / "weights").write_text("w")
    (tmp_path / "b" / "README.md").write_text("a card")
    (tmp_path / "b" / "run.json").write_text("{}")
    (tmp_path / "b" / ".cache" / "note").write_text("of the hub")
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    (tmp_path / "b" / "weights").write_text("v")
    assert content_of(tmp_path / "a") != content_of(tmp_path / "b")
    assert content_of(None) is None


def test_differences_name_settings_inside_others(tmp_path: Path) -> None:
    there = {"engine": {"name": "bm25", "hash": "a" * 64}, "path": Path("x"), "ks": (1, 2)}
    now = {"engine": {"name": "bm25", "hash": "b" * 64}, "path": "x", "ks": [1, 2]}
    assert differences(there, now) == [f"engine.hash (there content {'a' * 12}, now content "
        f"{'b' * 12})"]  # fmt: skip
    assert differences(there, now, unknown=["engine"]) == []
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1})
