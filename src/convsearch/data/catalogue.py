"""What is downloaded from where: `data/downloads.json`, in a checkout and in an installed wheel."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import Record, field
from convsearch.texts import read_json_object

_PLACES = (
    Path(__file__).with_name("downloads.json"),  # in a wheel
    Path(__file__).parents[3] / "data" / "downloads.json",  # in a checkout
)
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One file to download. What nobody publishes is None, and recorded at the first download."""

    name: str
    """File name in the download folder."""
    urls: tuple[str, ...]
    """Addresses, tried in this order."""
    size: int | None = None
    """Bytes."""
    sha256: str | None = None
    """Hex digest."""
    md5: str | None = None
    """Hex digest, for files whose publishers give only this one."""


@dataclass(frozen=True, kw_only=True)
class RawSet:
    """The raw files of one data set, or of one part of it."""

    title: str
    licence: str
    files: tuple[RawFile, ...]


def load_catalogue(path: Path | None = None) -> dict[str, RawSet]:
    """All sets by name. path: another catalogue of the same form, such as one with own mirrors.

    Raises MissingFileError, or DataError that names set, file and field.
    """
    where = path or next((place for place in _PLACES if place.is_file()), _PLACES[-1])
    if not where.is_file():
        raise MissingFileError(f"{where}: no such file; name a catalogue of downloads")
    record = read_json_object(where)
    return {
        name: _raw_set(value, f"{where}: {name}")
        for name, value in record.items()
        if name != "about"
    }


def raw_set(catalogue: Mapping[str, RawSet], name: str) -> RawSet:
    """One set. Raises ConfigError where the catalogue does not have it."""
    if name not in catalogue:
        raise ConfigError(
            f"the catalogue of downloads has no set {name!r}; it has {', '.join(sorted(catalogue))}"
        )
    return catalogue[name]


def _raw_set(value: object, where: str) -> RawSet:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object with title, licence and files")
    files = tuple(_raw_file(item, where) for item in field(value, "files", list, where))
    if not files or len({file.name for file in files}) < len(files):
        raise DataError(f"{where}: needs one or more files, each of another name")
    return RawSet(
        title=field(value, "title", str, where),
        licence=field(value, "licence", str, where),
        files=files,
    )


def _raw_file(item: object, where: str) -> RawFile:
    if not isinstance(item, dict):
        raise DataError(f"{where}: each of files must be an object")
    name = field(item, "name", str, where)
    where = f"{where}: {name}"
    if Path(name).name != name or name.startswith("."):
        raise DataError(f"{where}: a file name must have no folder and no dot at its start")
    urls = tuple(u for u in field(item, "urls", list, where) if isinstance(u, str) and "://" in u)
    if not urls:
        raise DataError(f"{where}: needs one or more addresses in urls")
    size = None if item.get("size") is None else field(item, "size", int, where)
    return RawFile(
        name=name,
        urls=urls,
        size=size,
        sha256=_digest(item, "sha256", 64, where),
        md5=_digest(item, "md5", 32, where),
    )


def _digest(item: Record, name: str, length: int, where: str) -> str | None:
    value = item.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) != length or set(value) - _HEX:
        raise DataError(f"{where}: {name} must be {length} hexadecimal digits in lower case")
    return value
