"""Arrays in pickles of others: numbers are read, nothing else happens."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from convsearch.errors import DataError, MissingFileError
from retriever_server.dense.pickled_array import read_pickled_array

SMALL = np.arange(12, dtype=np.float32).reshape(3, 4)
LARGE = np.random.default_rng(0).standard_normal((700, 768)).astype(np.float32)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [SMALL, LARGE, LARGE.T, np.asarray(SMALL, ">f8"), np.arange(5), LARGE.astype(np.float16)],
    ids=["small", "large", "fortran", "big-endian", "integers", "half"],
)
def test_arrays_come_back_as_they_were(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(array, protocol=protocol))
    found = read_pickled_array(path)
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert not found.flags.writeable


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_large_array_stays_in_its_file(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    with path.open("wb") as out:  # as the original writes it: to a file, not to bytes
        pickle.dump(LARGE, out, protocol=protocol)
    found = read_pickled_array(path)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, LARGE)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def _nested(path: Path) -> bytes:
    array = np.empty(1, dtype=object)
    array[0] = _Evil(path)
    return pickle.dumps(array, protocol=4)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    sign = tmp_path / "was-here"
    for data in (pickle.dumps(_Evil(sign), protocol=protocol), _nested(sign)):
        (tmp_path / "a.pkl").write_bytes(data)
        with pytest.raises(DataError, match=r"a\.pkl: refused"):
            read_pickled_array(tmp_path / "a.pkl")
        assert not sign.exists()
    pickle.loads(pickle.dumps(_Evil(sign), protocol=protocol))
    assert sign.exists(), "the pickle must be malicious for this test to mean anything"


@pytest.mark.parametrize(
    "code", [b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"Pname\n.", b"N.", b""]
)
def test_other_content_is_refused(tmp_path: Path, code: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(code)
    with pytest.raises(DataError, match="one numpy array of numbers"):
        read_pickled_array(tmp_path / "a.pkl")


@pytest.mark.parametrize("content", [{"a": SMALL}, [1.0], np.asarray(["text"]), "text"])
def test_what_is_no_array_of_numbers_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(DataError, match="refused"):
        read_pickled_array(tmp_path / "a.pkl")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    pickle.dump(LARGE, stream, protocol=4)
    data = stream.getvalue()
    for length in (1, 30, 90, 200, len(data) // 2, len(data) - 2):
        (tmp_path / "a.pkl").write_bytes(data[:length])
        with pytest.raises(DataError, match="refused"):
            read_pickled_array(tmp_path / "a.pkl")
    with pytest.raises(MissingFileError, match="no such file"):
        read_pickled_array(tmp_path / "none.pkl")
