"""The catalogue of downloads, and counts against published ones."""

from pathlib import Path

import pytest
from raw_files import write_catalogue

from convsearch.data.catalogue import load_catalogue, raw_set
from convsearch.data.published import check_counts, parse_expected
from convsearch.errors import ConfigError, DataError, MissingFileError


def test_the_shipped_catalogue_is_whole() -> None:
    catalogue = load_catalogue()
    assert set(catalogue) == {
        "topiocqa", "qrecc", "cast2019", "cast2020", "cast2021", "cast_passages", "cast_documents",
        "qa_nq", "qa_triviaqa", "qa_popqa", "qa_hotpotqa", "qa_2wikimultihopqa", "qa_musique",
        "qa_bamboogle", "wiki18",
    }  # fmt: skip
    urls = [url for known in catalogue.values() for file in known.files for url in file.urls]
    assert all(url.startswith("http") for url in urls)
    assert len(set(urls)) == len(urls)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"urls": []}, "needs one or more addresses"),
        ({}, 'field "urls" is missing'),
        ({"urls": ["http://x/f"], "sha256": "ABC"}, "sha256 must be 64 hexadecimal digits"),
        ({"urls": ["http://x/f"], "size": "12"}, 'field "size" must be int'),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, fields: dict[str, object], told: str) -> None:
    path = write_catalogue(tmp_path / "c.json", {"toy": {"f": fields}})
    with pytest.raises(DataError, match=f"toy.*{told}"):
        load_catalogue(path)


@pytest.mark.parametrize("name", ["../f", ".f", "a/b"])
def test_a_file_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    path = write_catalogue(tmp_path / "c.json", {"toy": {name: {"urls": ["http://x/f"]}}})
    with pytest.raises(DataError, match="no folder"):
        load_catalogue(path)


def test_no_catalogue_no_json_no_set(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        load_catalogue(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        load_catalogue(tmp_path / "c.json")
    with pytest.raises(ConfigError, match="no set 'x'"):
        raw_set({}, "x")


def test_counts_are_compared_by_name() -> None:
    counts = {"a": 1, "b": 2}
    assert check_counts(counts, {"a": 1}, {}, allow_mismatch=False) == []
    assert check_counts(counts, {"a": 9}, {"a": 1, "b": 2}, allow_mismatch=False) == []
    with pytest.raises(DataError, match="a is 1 and should be 9; b is 2 and should be 3"):
        check_counts(counts, {"a": 9, "b": 3}, {}, allow_mismatch=False)
    assert len(check_counts(counts, {"a": 9, "b": 3}, {}, allow_mismatch=True)) == 2
    with pytest.raises(ConfigError, match="--expect c: not counted"):
        check_counts(counts, {}, {"c": 1}, allow_mismatch=True)


def test_expected_counts_are_words() -> None:
    assert parse_expected(["a=1", "b=20"]) == {"a": 1, "b": 20}
    for word in ("a", "a=", "=1", "a=x", "a=-1", "a=\u00b2"):
        with pytest.raises(ConfigError, match="name=count"):
            parse_expected([word])
