"""Compiled loops of exact ranking. They hold no lock and start no thread; the caller shares work.

numba's own parallel loops are not used: its default thread layer must not be entered by two threads
at once, and the server calls from several.
"""

import numpy as np

from convsearch.errors import DependencyError, install_command

try:
    from retriever_server.compiling import compiled
    from retriever_server.dense.lanes import (
        LANES,
        bfloat16_product,
        bfloat16_sums,
        float16_product,
        float16_sums,
        float32_product,
        float32_sums,
    )
except ImportError:
    raise DependencyError(f"numba is not installed; run {install_command('retriever')}") from None


@compiled(inline="always")
def _number(bits, code):
    """The float32 of a stored number. code: see `formats.CODES`."""
    wide = np.uint32(bits)
    if code == 0:
        return wide.view(np.float32)
    if code == 1:
        return np.uint32(wide << np.uint32(16)).view(np.float32)
    # float16: exponent and fraction moved to the places of float32, the exponent's offset by a
    # product with 2^112, which is exact, subnormal numbers included
    size = np.uint32((wide & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32)
    sign = np.float32(1) - np.float32(2) * np.float32(wide >> np.uint32(15))
    return sign * (size * np.float32(5.192296858534828e33))


@compiled()
def decode_rows(bits_ND, code, first, last, out_ND):
    """Rows first to last of a block as float32."""
    for row in range(first, last):
        for d in range(bits_ND.shape[1]):
            out_ND[row, d] = _number(bits_ND[row, d], code)


@compiled()
def exact_score(bits_D, code, query_D):
    """Inner product in double precision of a stored vector and a query (float64), in an order of
    summation that depends on nothing but the dimension: number d belongs to sum d % LANES, each sum
    adds its products in order, and the sums are added in order. Both arrays contiguous."""
    if code == 0:
        sums = float32_sums(bits_D, query_D)
    elif code == 1:
        sums = bfloat16_sums(bits_D, query_D)
    else:
        sums = float16_sums(bits_D, query_D)
    dim = bits_D.shape[0]
    whole = dim - dim % LANES
    total = 0.0
    for lane in range(LANES):
        part = sums[lane]
        if whole + lane < dim:
            d = whole + lane
            part += np.float64(_number(bits_D[d], code)) * query_D[d]
        total += part
    return total


@compiled()
def near_score(bits_D, code, query_D):
    """The same product in float32 (query too), in any order, in a third of the time."""
    if code == 0:
        total = float32_product(bits_D, query_D)
    elif code == 1:
        total = bfloat16_product(bits_D, query_D)
    else:
        total = float16_product(bits_D, query_D)
    dim = bits_D.shape[0]
    for d in range(dim - dim % (2 * LANES), dim):
        total += _number(bits_D[d], code) * query_D[d]
    return total


@compiled()
def exact_scores(bits_ND, code, query_D, out_N):
    """`exact_score` of every row."""
    for row in range(bits_ND.shape[0]):
        out_N[row] = exact_score(bits_ND[row], code, query_D)


@compiled()
def extents(bits_ND, code, mean_D, out):
    """Largest length, and largest distance from the mean, of the rows: out[0], out[1]."""
    longest = 0.0
    farthest = 0.0
    for row in range(bits_ND.shape[0]):
        length = 0.0
        distance = 0.0
        for d in range(bits_ND.shape[1]):
            value = np.float64(_number(bits_ND[row, d], code))
            length += value * value
            distance += (value - mean_D[d]) ** 2
        longest = max(longest, length)
        farthest = max(farthest, distance)
    out[0] = np.sqrt(longest)
    out[1] = np.sqrt(farthest)


@compiled()
def count_band(products_QB, low_Q, high_Q, first, last, above_Q, near_Q):
    """For queries first to last: products above `high`, and products from `low` to `high`; all
    float32."""
    for q in range(first, last):
        low = low_Q[q]
        high = high_Q[q]
        above = np.int32(0)
        reached = np.int32(0)
        for j in range(products_QB.shape[1]):
            value = products_QB[q, j]
            above += np.int32(value > high)
            reached += np.int32(value >= low)
        above_Q[q] = above
        near_Q[q] = reached - above


@compiled()
def near_columns(products_QB, low_Q, high_Q, queries, starts, columns):
    """Columns whose product lies from `low` to `high`, for the queries given, one after another.

    starts: where the columns of each begin in `columns`, and the end of the last.
    """
    for place in range(queries.shape[0]):
        q = queries[place]
        low = low_Q[q]
        high = high_Q[q]
        at = starts[place]
        for j in range(products_QB.shape[1]):
            value = products_QB[q, j]
            if value >= low and value <= high:
                columns[at] = j
                at += 1


@compiled()
def count_before(bits_BD, code, queries_QD, queries, starts, columns, gold_Q, order_Q, order_B,
                 first, last, before):  # fmt: skip
    """How many of its columns come before the gold, for the places first to last of `queries`:
    score above the gold's, or equal and earlier in id order. Scores as in `exact_score`."""
    for place in range(first, last):
        q = queries[place]
        count = 0
        for at in range(starts[place], starts[place + 1]):
            column = columns[at]
            score = exact_score(bits_BD[column], code, queries_QD[q])
            if score > gold_Q[q] or (score == gold_Q[q] and order_B[column] < order_Q[q]):
                count += 1
        before[place] = count


@compiled()
def _worse(scores, orders, one, other):
    """Whether one place of a list comes after another: a lower score, or equal and later in id
    order."""
    return scores[one] < scores[other] or (
        scores[one] == scores[other] and orders[one] > orders[other]
    )


@compiled()
def _swap(scores, orders, positions, one, other):
    scores[one], scores[other] = scores[other], scores[one]
    orders[one], orders[other] = orders[other], orders[one]
    positions[one], positions[other] = positions[other], positions[one]


@compiled()
def _put(scores, orders, positions, size, score, order, position):
    """Puts a passage among the best of a query, which are a heap with the worst of them in front,
    or drops it. Returns how many there are then; size: how many there were."""
    if size < scores.shape[0]:
        child = size
        scores[child], orders[child], positions[child] = score, order, position
        while child > 0 and _worse(scores, orders, child, (child - 1) // 2):
            _swap(scores, orders, positions, child, (child - 1) // 2)
            child = (child - 1) // 2
        return size + 1
    if score < scores[0] or (score == scores[0] and order > orders[0]):
        return size
    scores[0], orders[0], positions[0] = score, order, position
    parent = 0
    while 2 * parent + 1 < size:
        child = 2 * parent + 1
        if child + 1 < size and _worse(scores, orders, child + 1, child):
            child += 1
        if not _worse(scores, orders, child, parent):
            break
        _swap(scores, orders, positions, child, parent)
        parent = child
    return size


@compiled()
def keep_best(bits_BD, code, queries_QD, queries, starts, columns, order_B, first_position, sizes_Q,
              scores_QK, orders_QK, positions_QK, begin, end):  # fmt: skip
    """Puts columns among the best of their queries, for the places begin to end of `queries`, by
    exact scores, or drops them.

    first_position: of the block's first row; sizes_Q: how many of a query's best there are.
    """
    for place in range(begin, end):
        q = queries[place]
        scores, orders, positions = scores_QK[q], orders_QK[q], positions_QK[q]
        size = sizes_Q[q]
        for at in range(starts[place], starts[place + 1]):
            column = columns[at]
            score = exact_score(bits_BD[column], code, queries_QD[q])
            position = first_position + column
            size = _put(scores, orders, positions, size, score, order_B[column], position)
        sizes_Q[q] = size
