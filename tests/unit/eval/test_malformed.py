"""Rewrites that are mostly malformed are said to be so before they are measured."""

from pathlib import Path

import pytest

from convsearch.files import write_rewrites
from convsearch.passport import write_passport
from convsearch.pipeline.malformed import rewrites_to_measure
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
