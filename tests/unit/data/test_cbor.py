"""TREC CAR files: every form of length they may use, and damage is an error, never a short text."""

import io

import pytest
from raw_files import car_bytes, cbor

from convsearch.data.cbor import CborError, read_paragraphs

PARAGRAPHS = {
    "a1": ["short"],
    "b2": ["x" * 23, "y" * 24, "z" * 255, "é" * 400, "w" * 70_000],
    "c3": [],
}


def test_paragraphs_of_all_lengths() -> None:
    read = list(read_paragraphs(io.BytesIO(car_bytes(PARAGRAPHS))))
    assert read == [(raw_id, "".join(pieces)) for raw_id, pieces in PARAGRAPHS.items()]


def test_open_lengths_tags_and_simple_values() -> None:
    text = b"\x7f" + cbor("in ") + cbor("parts") + b"\xff"
    body = b"\x9f\x00" + text + b"\xff"
    paragraph = b"\x83" + b"\xc1\x00" + cbor(b"id") + b"\x9f" + body + b"\xff"
    header = b"\x82" + cbor("CAR") + b"\x85" + b"\x02\xf4\xf5\xf6\x20"
    stream = io.BytesIO(header + b"\x9f" + paragraph + b"\xff")
    assert list(read_paragraphs(stream)) == [("id", "in parts")]


def test_every_cut_is_noticed() -> None:
    whole = car_bytes({"a1": ["one", "two"], "b2": ["three"]})
    for size in range(len(whole)):
        with pytest.raises(CborError):
            list(read_paragraphs(io.BytesIO(whole[:size])))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (cbor(["PDF", [2]]), "header is missing"),
        (cbor(["CAR", [2]]) + cbor([]), "no array of paragraphs"),
        (cbor(["CAR", [2]]) + b"\x9f" + cbor([1, b"id", []]) + b"\xff", "paragraph 1"),
        (cbor(["CAR", [2]]) + b"\x9f" + cbor([0, b"id", [[1, [0]]]]) + b"\xff", "paragraph 1"),
        (cbor(["CAR", [2]]) + b"\x9f\xa0\xff", "a map"),
        (cbor(["CAR", [2]]) + b"\x9f\x62\xff\xfe\xff", "not UTF-8"),
        (cbor(["CAR", [2]]) + b"\x9f\xfb" + bytes(8) + b"\xff", "does not have"),
    ],
)
def test_other_content_is_named(content: bytes, told: str) -> None:
    with pytest.raises(CborError, match=told):
        list(read_paragraphs(io.BytesIO(content)))
