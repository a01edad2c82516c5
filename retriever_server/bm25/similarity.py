"""BM25 in Lucene's arithmetic: one-byte passage lengths, single precision, and caps of one byte.

Facts from Lucene 9: `SmallFloat.intToByte4`, `BM25Similarity.scorer`. The score of a term is
`w - w / (1 + tf * inverse_norm[code])` with `w = boost * idf`, all in single precision; the scores
of the terms are summed in double precision and rounded to single at the end.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_FREE = 24
"""Lengths below this are their own code: 255 less the code of the largest int, in four bits."""
_ROUNDING = 1e-4
"""Added before a cap is rounded up, in units of 1/255: more than single precision can lose."""


def length_codes(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Code of each length: exact up to 39, beyond that the leading four bits, rounded down."""
    return (np.searchsorted(_LENGTHS, lengths, side="right") - 1).astype(np.uint8)


def _length_of_code(code: int) -> int:
    if code < _FREE:
        return code
    mantissa, shift = (code - _FREE) & 7, ((code - _FREE) >> 3) - 1
    return _FREE + (mantissa if shift < 0 else (mantissa | 8) << shift)


_LENGTHS = np.asarray([_length_of_code(code) for code in range(256)], dtype=np.int64)


def inverse_norms(k1: float, b: float, num_tokens: int, num_passages: int) -> Floats:
    """For each code of a length `1 / (k1 * ((1 - b) + b * length / average))`, shape (256,).

    num_passages: those with at least one term, as Lucene's `docCount`.
    """
    one, k1_f, b_f = np.float32(1), np.float32(k1), np.float32(b)
    average = np.float32(num_tokens / num_passages)
    norms = k1_f * ((one - b_f) + b_f * _LENGTHS.astype(np.float32) / average)
    with np.errstate(divide="ignore"):  # k1 = 0: how often a word occurs does not count
        return (one / norms).astype(np.float32)


def idf(df: npt.NDArray[np.integer], num_passages: int) -> Floats:
    """`log(1 + (N - df + 0.5) / (df + 0.5))` of each term, rounded to single precision."""
    return np.log(1 + (num_passages - df + 0.5) / (df + 0.5)).astype(np.float32)


def caps(tfs: npt.NDArray[np.integer], inverse: Floats) -> npt.NDArray[np.uint8]:
    """Upper bound of the share of its weight that each posting earns, in units of 1/255.

    tfs, inverse: frequency of the term and inverse norm of the passage, of the same shape. The
    bound holds for the score as Lucene rounds it: `score <= w * cap / 255`.
    """
    with np.errstate(invalid="ignore"):
        shares = 1 - 1 / (1 + tfs * inverse.astype(np.float64))
    return np.minimum(255, np.ceil(255 * shares + _ROUNDING)).astype(np.uint8)
