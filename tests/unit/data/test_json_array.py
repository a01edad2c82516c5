"""Arrays of objects are read an entry at a time, wherever the blocks of the file end."""

import json
from pathlib import Path

import pytest

from convsearch.data import json_array
from convsearch.errors import DataError, MissingFileError

ENTRIES = [{"a": 1}, {"text": 'é "quoted" ]['}, {}, {"deep": [{"x": [1, 2]}, "}"]}]


@pytest.mark.parametrize("block", [1, 3, 7, 2**20])
@pytest.mark.parametrize("indent", [None, 2])
def test_entries_arrive_whatever_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_array, "BLOCK_CHARS", block)
    path = tmp_path / "a.json"
    path.write_text("\ufeff " + json.dumps(ENTRIES, indent=indent, ensure_ascii=False) + "\n ")
    read = list(json_array.read_json_array(path))
    assert [entry for _, entry in read] == ENTRIES
    assert read[2][0] == f"{path}: entry 3"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a JSON array"),
        ('{"a": 1}', "not a JSON array"),
        ('[{"a": 1}, {"b"', "cut off, after entry 1"),
        ('[{"a": 1}', "cut off, after entry 1"),
        ('[{"a": 1}, x]', "after entry 1"),
        ("[1]", "entry 1 is not an object"),
        ('[{"a": 1}] [', "goes on after its end"),
    ],
)
@pytest.mark.parametrize("block", [2, 2**20])
def test_damage_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str, block: int
) -> None:
    monkeypatch.setattr(json_array, "BLOCK_CHARS", block)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        list(json_array.read_json_array(path))


def test_bytes_that_are_no_text_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(DataError, match="not UTF-8"):
        list(json_array.read_json_array(tmp_path / "a.json"))
    with pytest.raises(MissingFileError):
        list(json_array.read_json_array(tmp_path / "b.json"))
