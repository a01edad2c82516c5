"""Archives that are made to harm: links, passwords, bombs, nesting. Each is a sentence."""

import gzip
import io
import json
import resource
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from raw_files import QRECC_MEMBERS, write_passages_zip, write_tar

from convsearch.data import archives
from convsearch.data.cast_corpora import read_car, read_marco_passages
from convsearch.data.json_array import read_json_array
from convsearch.data.qrecc_passages import read_passages_zip
from convsearch.data.wiki18 import read_wiki18
from convsearch.errors import DataError
from convsearch.files import read_jsonl

LINE = json.dumps({"id": "1", "contents": '"T"\ntext'}).encode() + b"\n"
DEEP = b'{"id": "1", "contents": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
DIGITS = b'{"id": "1", "contents": ' + b"1" * 10_000 + b"}\n"
FIRST = "x/commoncrawl/a.jsonl"


@contextmanager
def memory_of_at_most(more: int) -> Iterator[None]:
    """Of this process, beside what it has."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def zip_with(path: Path, first: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FIRST, first)
        for folder in ("wayback", "wayback-backfill"):
            archive.writestr(f"x/{folder}/a.jsonl", LINE)
    return path


def bomb(path: Path, num_bytes: int) -> None:
    """A gzip file of one line without end."""
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(b'{"id": "1", "contents": "')
        for _ in range(num_bytes // 2**20):
            out.write(b"a" * 2**20)


def test_a_bomb_is_refused_within_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes that become 80 MB of one line, read in 60 MB."""
    assert archives.MAX_LINE_BYTES <= 100 * 2**20
    monkeypatch.setattr(archives, "MAX_LINE_BYTES", 2**20)
    size = 80 * 2**20
    bomb(tmp_path / "wiki.gz", size)
    zip_with(tmp_path / "passages.zip", b"a" * size)
    write_tar(tmp_path / "marco.tar.gz", "w:gz", "collection.tsv", b"1\t" + b"a" * size)
    assert (tmp_path / "wiki.gz").stat().st_size < 3_000_000
    with memory_of_at_most(60 * 2**20):
        for read, name in (
            (read_wiki18, "wiki.gz"),
            (read_passages_zip, "passages.zip"),
            (read_marco_passages, "marco.tar.gz"),
        ):
            with pytest.raises(DataError, match=rf"{name}.*:1: a line of more than 1 MB"):
                list(read(tmp_path / name))


@pytest.mark.parametrize("record", [DEEP, DIGITS], ids=["deep", "digits"])
def test_json_that_python_does_not_read_is_named(record: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(LINE + record)
    (tmp_path / "wiki.gz").write_bytes(gzip.compress(LINE + record))
    (tmp_path / "t.json").write_bytes(b"[" + record + b"]")
    zip_with(tmp_path / "p.zip", LINE + record)
    with pytest.raises(DataError, match=r"t\.jsonl:2: not valid JSON"):
        list(read_jsonl(tmp_path / "t.jsonl"))
    with pytest.raises(DataError, match=r"wiki\.gz:2: not valid JSON"):
        list(read_wiki18(tmp_path / "wiki.gz"))
    with pytest.raises(DataError, match=r"a\.jsonl:2: not valid JSON"):
        list(read_passages_zip(tmp_path / "p.zip"))
    with pytest.raises(DataError, match="after entry 0"):
        list(read_json_array(tmp_path / "t.json"))


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(LINE)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for suffix in (".jsonl", ".tsv"):
                info = tarfile.TarInfo(f"../../a{suffix}")
                info.type, info.linkname = kind, str(secret)
                archive.addfile(info)
        path = tmp_path / "hostile.tar.gz"
        path.write_bytes(gzip.compress(packed.getvalue()))
        with pytest.raises(DataError, match=r"without a \.jsonl file"):
            list(read_wiki18(path))
        with pytest.raises(DataError, match=r"holds no \.tsv file"):
            list(read_marco_passages(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hostile.tar.gz", "secret.jsonl"]


def test_names_that_leave_the_folder_write_nothing(tmp_path: Path) -> None:
    """Nothing is unpacked: a name is only a name."""
    inside = tmp_path / "in"
    inside.mkdir()
    members = {f"../../{name}": rows for name, rows in QRECC_MEMBERS.items()}
    write_passages_zip(inside / "passages.zip", members)
    assert len(list(read_passages_zip(inside / "passages.zip"))) > 3
    write_tar(inside / "c.tar", "w", "../../collection.tsv", b"1\ttext\n")
    assert [raw.raw_id for raw in read_marco_passages(inside / "c.tar")] == ["MARCO_1"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["c.tar", "in", "passages.zip"]


def test_a_locked_or_strangely_packed_zip_is_a_sentence(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "p.zip", LINE)
    whole = path.read_bytes()
    for what, offsets, value in (
        ("encrypted", (6, 8), 1),  # flag bit 0, in the local and in the central header
        ("compression", (8, 10), 97),
    ):
        data = bytearray(whole)
        for signature, offset in zip((b"PK\x03\x04", b"PK\x01\x02"), offsets, strict=True):
            at = data.index(signature)
            (old,) = struct.unpack_from("<H", data, at + offset)
            struct.pack_into("<H", data, at + offset, old | value if value == 1 else value)
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"p\.zip: .*{what}"):
            list(read_passages_zip(path))


def test_lengths_and_depths_of_cbor_are_not_believed(tmp_path: Path) -> None:
    head = b"\x82\x63CAR\x80\x9f"
    for tail in (b"\x5b" + b"\x7f" * 8, b"\x5b\x00\x00\x00\x40\x00\x00\x00\x00", b"\x81" * 100_000):
        (tmp_path / "p.cbor").write_bytes(head + tail)
        with (
            memory_of_at_most(500_000_000),
            pytest.raises(DataError, match=r"p\.cbor: .*check the download"),
        ):
            list(read_car(tmp_path / "p.cbor"))


@pytest.mark.parametrize("cut", [100, 110, 200])
def test_an_archive_cut_anywhere_is_a_sentence(cut: int, tmp_path: Path) -> None:
    zip_with(tmp_path / "p.zip", LINE * 99)
    (tmp_path / "w.gz").write_bytes(gzip.compress(LINE * 99))
    write_tar(tmp_path / "m.tar.gz", "w:gz", "collection.tsv", b"1\ttext\n" * 999)
    for read, name in (
        (read_passages_zip, "p.zip"),
        (read_wiki18, "w.gz"),
        (read_marco_passages, "m.tar.gz"),
    ):
        path = tmp_path / name
        data = path.read_bytes()
        path.write_bytes(data[: max(0, len(data) - cut)])
        with pytest.raises(DataError, match=name):
            list(read(path))
