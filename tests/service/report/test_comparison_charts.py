"""The charts of a comparison, drawn by matplotlib."""

from pathlib import Path

import pytest
from evaluation_folders import write_folder

from convsearch.pipeline.comparison import Method
from convsearch.pipeline.evaluation_folder import read_evaluation
from convsearch.report.comparison_charts import length_means, turn_bands, write_charts

RANKS = {f"c{c}_{t}": (c * t) % 7 or None for c in range(12) for t in range(1, 4 + (c < 3) * 2)}


@pytest.fixture
def methods(tmp_path: Path) -> list[Method]:
    found = {"raw": RANKS, "ours": {**RANKS, "c0_1": 1}, "ours2": {**RANKS, "c0_1": 2}}
    read = {n: read_evaluation(write_folder(tmp_path / n, r)) for n, r in found.items()}
    return [
        Method(name="raw", seeds=(read["raw"],)),
        Method(name="ours", seeds=(read["ours"], read["ours2"])),
    ]


def test_files_repeat_to_the_byte_and_name_the_methods(tmp_path: Path, methods: list[Method]):
    made = write_charts(tmp_path / "one", methods, list(RANKS))
    again = write_charts(tmp_path / "two", methods, list(RANKS))
    names = ["mrr_by_turn.svg", "rank_histogram.svg", "length_gain.svg"]
    assert [path.name for path in made] == names
    for one, two in zip(made, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert ">ours</text>" in one.read_text()
    assert "turn of the conversation, number of questions" in made[0].read_text()
    assert ">6</" in made[0].read_text()  # questions of turn 4 and later
    pictures = write_charts(tmp_path / "one", methods[:1], list(RANKS), form="png")
    assert len(pictures) == 2  # nothing to gain over
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_rare_late_turns_are_drawn_together(methods: list[Method]):
    bands = turn_bands(methods, list(RANKS))
    assert {label: len(qids) for label, qids in bands.items()} == {
        "1": 12,
        "2": 12,
        "3": 12,
        "4+": 6,
    }


def test_lengths_are_banded_evenly_and_equal_ones_stay_together():
    words = {f"q{i}": 1 + i // 5 for i in range(40)}
    gains = {q: float(n) for q, n in words.items()}
    assert length_means(words, gains) == [(float(n), float(n)) for n in range(1, 9)]
    assert length_means(dict.fromkeys(words, 3), gains) == [(3.0, 4.5)]
