"""A converter keeps what it made of the same, and refuses everything else that lies in its way."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from convsearch.data.mini import write_mini
from convsearch.data.mini.hop_files import write_hops
from convsearch.data.own import convert_own
from convsearch.data.pooled import convert_pooled
from convsearch.errors import ConfigError
from convsearch.passport import write_passport

TALK = {"id": "c1", "turns": [{"question": "what is it", "answer": "", "relevant": ["d1"]}]}


def write(path: Path, *records: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def own_files(folder: Path, text: str = "x") -> tuple[Path, Path]:
    return (
        write(folder / "talks.jsonl", TALK),
        write(folder / "passages.jsonl", {"id": "d1", "text": text}),
    )


def pooled_source(folder: Path, text: str = "x") -> Path:
    write(folder / "corpus.jsonl", {"id": "d1", "title": "T", "text": text})
    turn = {"id": "q1", "conv": "c1", "turn": 1, "split": "test", "question": "what", "history": []}
    write(folder / "test.jsonl", {**turn, "gold": ["d1"]})
    return folder


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_own_data(tmp_path: Path) -> None:
    talks, passages = own_files(tmp_path / "in")
    out = tmp_path / "out"
    counts = convert_own(talks, passages, out, name="mine", test_share=1.0, dev_share=0.0)
    before = state(out)
    moved = own_files(tmp_path / "elsewhere")

    def again(*files: Path, **more: object) -> dict[str, int]:
        options = {"name": "mine", "test_share": 1.0, "dev_share": 0.0, **more}
        return convert_own(*files, out, **options)  # pyright: ignore[reportArgumentType]

    assert again(*moved) == counts
    assert state(out) == before
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: again(*moved, seed=1), r"seed \(there 0, now 1\)"),
        (lambda: again(*moved, name="other"), "name "),
        (lambda: again(*own_files(tmp_path / "elsewhere", "changed")), r"passages \(there"),
    ]
    for attempt, sentence in refused:
        with pytest.raises(ConfigError, match=rf"was made with other settings: {sentence}"):
            attempt()
    assert state(out) == before
    again(*own_files(tmp_path / "elsewhere", "changed"), fresh=True)
    assert '"changed"' in (out / "corpus.jsonl").read_text()


@pytest.mark.parametrize("fresh", [False, True])
def test_another_commands_passport_and_foreign_files_stay(tmp_path: Path, fresh: bool) -> None:
    makers: list[Callable[[Path], object]] = [
        lambda out: convert_own(*own_files(tmp_path / "in"), out, fresh=fresh),
        lambda out: convert_pooled(pooled_source(tmp_path / "pooled"), out, fresh=fresh),
        lambda out: write_mini(out, fresh=fresh),
        lambda out: write_hops(out, fresh=fresh),
    ]
    for number, make in enumerate(makers):
        taken = tmp_path / f"taken{number}"
        write_passport(taken / "run.json", stage="distill", settings={})
        before = state(taken)
        with pytest.raises(ConfigError, match=r"what another command made \(distill\)"):
            make(taken)
        assert state(taken) == before
        mine = tmp_path / f"mine{number}"
        write(mine / "corpus.jsonl", {"id": "of somebody else"})
        before = state(mine)
        with pytest.raises(ConfigError, match=r"corpus\.jsonl: exists, and run\.json beside it"):
            make(mine)
        assert state(mine) == before


def test_passages_are_not_written_over_by_what_is_made_of_them(tmp_path: Path) -> None:
    talks, _ = own_files(tmp_path)
    passages = write(tmp_path / "corpus.jsonl", {"id": "d1", "text": "x"})
    with pytest.raises(ConfigError, match="is an input, and lies where data own writes"):
        convert_own(talks, passages, tmp_path, fresh=True)


def test_the_embedded_sets_know_their_seed(tmp_path: Path) -> None:
    out = tmp_path / "mini"
    counts = write_mini(out)
    before = state(out)
    assert write_mini(out) == counts
    assert state(out) == before
    with pytest.raises(ConfigError, match=r"seed \(there 20250520, now 7\)"):
        write_mini(out, 7)
    write_mini(out, 7, fresh=True)
    assert json.loads((out / "run.json").read_text())["seed"] == 7
    with pytest.raises(ConfigError, match=r"what another command made \(data mini\), not data hop"):
        write_hops(out, fresh=True)


def test_a_file_that_the_new_data_lack_does_not_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_pooled(pooled_source(tmp_path / "a"), out)
    (out / "turn_info.jsonl").write_text("of the first")
    (out / "notes.txt").write_text("mine")
    convert_pooled(pooled_source(tmp_path / "b"), out, fresh=True)
    assert not (out / "turn_info.jsonl").exists()
    assert (out / "notes.txt").read_text() == "mine"
