"""Rewrites that are mostly malformed are said to be so before they are measured."""

from pathlib import Path

import pytest

from convsearch.files import write_rewrites
from convsearch.passport import write_passport
from convsearch.pipeline.measured_rewrites import rewrites_to_measure, warn_of_another_engine
from convsearch.prompts.asking import asking_of, write_asking
from convsearch.types import Rewrite

BROKEN = "<think> fried hall y</rewrite>"


def written(folder: Path, *, malformed: int, ok: int = 2) -> Path:
    path = folder / "rewrites.jsonl"
    good = [Rewrite(qid=f"g{i}", status="ok", text="a", response="a", seed=0) for i in range(ok)]
    bad = [
        Rewrite(qid=f"b{i}", status="malformed", text=None, response=BROKEN, seed=0)
        for i in range(malformed)
    ]
    write_rewrites(path, [*good, *bad])
    return path


def test_half_is_measured_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert len(rewrites_to_measure(written(tmp_path, malformed=2))) == 4
    assert caplog.text == ""


def test_most_is_said_with_the_reason_that_the_passport_allows(tmp_path: Path, caplog):
    path = written(tmp_path, malformed=3)
    rewrites_to_measure(path)
    assert "3 of 5 rewrites are malformed" in caplog.text
    assert "Likely reason" not in caplog.text
    for settings in ({"style": "instruct", "shots": 0}, {"style": "haiku", "shots": 0}, {}):
        caplog.clear()
        write_passport(tmp_path / "rewrites.run.json", stage="infer", settings=settings)
        rewrites_to_measure(path)
        assert ("trained with another prompt" in caplog.text) == (
            settings.get("style") == "instruct"
        )
    (tmp_path / "rewrites.run.json").write_text("[")
    assert len(rewrites_to_measure(path)) == 5


def test_another_engine_than_that_of_the_training_is_said(tmp_path: Path, caplog):
    model = tmp_path / "model"
    write_asking(model, asking_of("nano", engine="bm25", index_fingerprint="a" * 64, dataset="toy"))
    path = written(tmp_path, malformed=0)
    same = {"engine": "bm25", "fingerprint": "a" * 64}
    other = {"engine": "dense", "fingerprint": "b" * 64}
    warn_of_another_engine(path, other)  # nothing tells which model
    source = model / "convsearch.json"
    write_passport(tmp_path / "rewrites.run.json", stage="infer", settings={}, inputs=[source])
    for engine in (same, None, "an address"):
        warn_of_another_engine(path, engine)
    assert caplog.text == ""
    for engine in (other, {**same, "fingerprint": "c" * 64}):
        caplog.clear()
        warn_of_another_engine(path, engine)
        assert "trained for the ranks of bm25 of toy (index aaaaaaaaaaaa), and is" in caplog.text
    caplog.clear()
    source.write_text("{")
    warn_of_another_engine(path, other)
    source.unlink()
    warn_of_another_engine(path, other)
    assert caplog.text == ""
