"""Terms of an index by hash: 128 bits stand for a term, so no vocabulary is ever in memory."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]


def term_keys(terms: Iterable[str]) -> Keys:
    """Hash of each term as two numbers, shape (n, 2). Two of a hundred million terms share both
    with a probability of 1e-23."""
    digests = b"".join(hashlib.blake2b(term.encode(), digest_size=16).digest() for term in terms)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(-1, 2)


def find_terms(keys: Keys, wanted: Keys) -> npt.NDArray[np.int64]:
    """Number of each wanted term among the sorted keys of an index, -1 where it is not there."""
    if len(keys) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(keys[:, 0], wanted[:, 0]), len(keys) - 1)
    return np.where((keys[places] == wanted).all(axis=1), places, -1)
