"""`convsearch data prompts` writes what `convsearch grpo` reads."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.data.parquet import read_rows_asking
from convsearch.errors import DataError
from convsearch.files import write_qrels, write_turns
from convsearch.passages import write_passages
from convsearch.prompts.asking import asking_of, write_asking
from convsearch.types import Passage, Turn


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    turns = [
        Turn(qid=f"q{i}", conv_id="c", turn=i, split="train", question=f"what is {i}?")
        for i in (1, 2)
    ]
    write_turns(folder / "turns.jsonl", turns)
    write_qrels(folder / "qrels.trec", {"q1": {"d1": 1}, "q2": {"d1": 1, "d2": 1}})
    write_passages(folder / "corpus.jsonl", [Passage(doc_id="d1", title="", text="one")])
    return folder


def test_a_row_for_each_turn_with_its_golds(dataset: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out = tmp_path / "grpo.parquet"
    arguments = [
        "data",
        "prompts",
        "--dataset",
        str(dataset),
        "--out",
        str(out),
        "--prompt",
        "nano",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = pq.read_table(out).to_pylist()
    assert [row["reward_model"]["ground_truth"] for row in rows] == [["d1"], ["d1", "d2"]]
    assert [row["data_source"] for row in rows] == ["toy", "toy"]


def test_the_model_that_will_be_trained_says_the_style(
    dataset: Path, tmp_path: Path, caplog
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (model / name).touch()
    write_asking(model, asking_of("nano"))
    out = tmp_path / "grpo.parquet"
    words = ["data", "prompts", "--dataset", str(dataset), "--out", str(out), "--fresh"]
    for flags, style, warnings in (
        ([], "instruct", 0),
        (["--model", str(model)], "nano", 0),
        (["--model", str(model), "--prompt", "instruct"], "instruct", 1),
    ):
        assert CliRunner().invoke(app, [*words, *flags]).exit_code == 0
        assert read_rows_asking(out) == asking_of(style, dataset="toy")
        assert len(caplog.records) == warnings
    write_asking(model, asking_of("plain"))
    refused = CliRunner().invoke(app, [*words, "--model", str(model)])
    assert "prompt style 'plain' cannot be trained" in str(refused.exception)


def test_wrong_split_is_a_sentence_and_leaves_nothing(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "grpo.parquet"
    arguments = ["data", "prompts", "--dataset", str(dataset), "--out", str(out), "--split", "best"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, DataError)
    assert "splits here: train" in str(result.exception)
    assert not out.exists()


def call(*words: object) -> str:
    """What a command says, or the sentence of its error."""
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    return str(result.exception) if result.exception else result.output


def test_prompts_of_other_settings_or_data_are_refused(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "grpo.parquet"
    words = ["prompts", "--dataset", dataset, "--out", out]
    assert "num_prompts" in call(*words)
    before = out.stat().st_mtime_ns
    copy = shutil.copytree(dataset, tmp_path / "elsewhere" / "toy")
    assert "num_prompts" in call("prompts", "--dataset", copy, "--out", out)
    assert "prompt (there 'instruct', now 'nano')" in call(*words, "--prompt", "nano")
    write_qrels(dataset / "qrels.trec", {"q1": {"d1": 1}, "q2": {"d1": 1}})
    assert "qrels (there content" in call(*words)
    assert out.stat().st_mtime_ns == before
    assert "num_prompts" in call(*words, "--fresh")
    assert out.stat().st_mtime_ns != before
    strange = tmp_path / "strange.parquet"
    strange.write_text("of somebody else")
    for more in ([], ["--fresh"]):
        said = call("prompts", "--dataset", dataset, "--out", strange, *more)
        assert "strange.run.json beside it does not say how it was made" in said
    assert "is the name of a passport" in call(
        "prompts", "--dataset", dataset, "--out", tmp_path / "run.json"
    )


def test_rewrites_of_another_field_are_refused_and_never_a_models(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "rewrites.jsonl"
    source.mkdir()
    (source / "dev.jsonl").write_text('{"id": "q1", "rewrite": "a", "other": "b"}\n')
    words = ["rewrites", "--source", source, "--out", out]
    assert "num_rewrites" in call(*words)
    assert "field (there 'rewrite', now 'other')" in call(*words, "--field", "other")
    assert "num_rewrites" in call(*words, "--field", "other", "--fresh")
    (tmp_path / "rewrites.run.json").write_text('{"stage": "infer", "settings": {}}')
    for more in ([], ["--fresh"]):
        assert "what another command made (infer), not data rewrites" in call(*words, *more)
