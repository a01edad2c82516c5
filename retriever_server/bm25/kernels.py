"""Compiled BM25: ranks by counting what beats the gold passage, and the best passages of a query.

Both go through `_survivors`, which finds the passages of one block whose score can reach a
threshold. It adds integer upper bounds (caps), so no rounding can lose a passage; what survives is
scored in Lucene's own arithmetic. Terms with a low bound are not added up at all as long as they
cannot lift a passage over the threshold (MaxScore, Turtle and Flood 1995), with bounds that hold
for the block alone (block-max, Ding and Suel 2011). For a rank the threshold is the gold passage's
score, known before the search begins.

All kernels run without the interpreter's lock; none shares memory with another call.
"""

import math

import numpy as np

from retriever_server.bm25.arrays import BLOCK, MAX_PASSAGES, TF_OVERFLOW
from retriever_server.compiling import compiled

SCALE = 1 << 22
"""All weights of a query together, as an integer; times 255 and a little rounding below 2^31."""
_BLOCKS = MAX_PASSAGES // BLOCK
_LOOKUP = 24
"""Postings that can be added up in the time of one binary search, about."""
_PATIENCE = 2048
"""Postings that are added up before the survivors are counted again."""
_CHUNK = 32
"""Sums that are compared at once."""
_SAFETY = 1 - 1e-6
"""Thresholds are lowered by this factor: more than the rounding of a score to single precision."""


@compiled()
def _lower_bound(numbers, low, high, number):
    """First place of the sorted `numbers[low:high]` that holds `number` or more; `high` if none."""
    while low < high:
        middle = (low + high) >> 1
        if numbers[middle] < number:
            low = middle + 1
        else:
            high = middle
    return low


@compiled()
def _find(docs, start, end, doc):
    """Posting of `doc` in `docs[start:end]`, or -1."""
    at = _lower_bound(docs, start, end, doc)
    return at if at < end and docs[at] == doc else -1


@compiled()
def _score(index, inverse_norms, block, doc, n, terms, weights, entry_of, start_of):
    """Score of one passage in Lucene's arithmetic; 0 where no term occurs."""
    inverse = inverse_norms[index.lengths[block * BLOCK + doc]]
    total = 0.0
    for i in range(n):
        entry = entry_of[block, i]
        if entry < 0:
            continue
        start = index.term_postings[terms[i]] + start_of[block, i]
        size = np.int64(index.entry_sizes[np.int64(index.term_entries[terms[i]]) + entry])
        at = _find(index.docs, start, start + size, doc)
        if at >= 0:
            tf = np.float32(index.tfs[at])
            if index.tfs[at] == TF_OVERFLOW:
                place = _find(index.overflow_at, 0, len(index.overflow_at), at)
                tf = np.float32(index.overflow_tf[place])
            w = weights[i]
            total += np.float64(w - w / (np.float32(1) + tf * inverse))
    return np.float32(total)


@compiled()
def _lay_out(index, n, terms, units, first_block, end_block, entry_of, start_of, bounds):
    """Fills, for each of these blocks and each term, entry and first posting (from the term's own
    on), and for each of the blocks the bound on any passage's score."""
    entry_of[first_block:end_block, :n] = -1
    bounds[first_block:end_block] = 0
    for i in range(n):
        first = np.int64(index.term_entries[terms[i]])
        end = np.int64(index.term_entries[terms[i] + 1])
        begin = _lower_bound(index.entry_blocks, first, end, first_block)
        start = 0
        for e in range(first, begin):
            start += np.int64(index.entry_sizes[e])
        for e in range(begin, _lower_bound(index.entry_blocks, begin, end, end_block)):
            block = np.int64(index.entry_blocks[e])
            entry_of[block, i] = e - first
            start_of[block, i] = start
            start += np.int64(index.entry_sizes[e])
            bounds[block] += units[i] * np.int32(index.entry_caps[e])


@compiled()
def _collect(sums, least, found, limit):
    """Writes the passages whose sum reaches `least` to `found`; -1 where they exceed `limit`."""
    count = 0
    for chunk in range(0, BLOCK, _CHUNK):
        part = sums[chunk : chunk + _CHUNK]
        highest = part[0]
        for j in range(_CHUNK):
            highest = max(highest, part[j])
        if highest >= least:
            for j in range(_CHUNK):
                if part[j] >= least:
                    if count == limit:
                        return -1
                    found[count] = chunk + j
                    count += 1
    return count


@compiled()
def _scratch(num_blocks, most):
    """Memory for one query after another of at most so many terms: what `_lay_out` fills, the
    units of `_units`, and the room of `_survivors`."""
    entry_of = np.empty((num_blocks, most), np.int32)
    start_of = np.empty((num_blocks, most), np.int32)
    bounds = np.empty(num_blocks, np.int32)
    units, parts = np.zeros(most, np.int32), np.empty(most, np.int32)
    sums = np.zeros(BLOCK, np.int32)
    found, bound_of = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    starts, sizes = np.empty(most, np.int64), np.empty(most, np.int64)
    tops = np.empty(most, np.int64)
    return entry_of, start_of, bounds, units, (found, bound_of, sums, starts, sizes, parts, tops)


@compiled()
def _survivors(index, block, n, terms, units, entry_of, start_of, least, room):
    """Finds the passages of a block whose upper bound reaches `least`, and returns their number;
    they and their bounds are the first two arrays of the room. Its third is zeros (left so)."""
    found, bound_of, sums, starts, sizes, parts, tops = room
    present = 0
    rest = 0
    for i in range(n):
        entry = entry_of[block, i]
        if entry >= 0:
            e = np.int64(index.term_entries[terms[i]]) + entry
            starts[present] = index.term_postings[terms[i]] + start_of[block, i]
            sizes[present] = index.entry_sizes[e]
            parts[present] = units[i]
            tops[present] = units[i] * np.int32(index.entry_caps[e])
            rest += tops[present]
            present += 1
    # from the terms that matter most down to those that cannot lift a passage over the threshold
    j = present - 1
    count = -1
    since = _PATIENCE
    while j >= 0:
        if rest < least and since >= _PATIENCE:
            count = _collect(sums, least - rest, found, sizes[j] // _LOOKUP)
            if count >= 0:
                break
            since = 0
        unit = parts[j]
        for at in range(starts[j], starts[j] + sizes[j]):
            sums[index.docs[at]] += unit * np.int32(index.caps[at])
        since += sizes[j]
        rest -= tops[j]
        j -= 1
    if count < 0:
        count = _collect(sums, least, found, BLOCK)
    kept = 0
    for f in range(count):
        doc = found[f]
        top = sums[doc]
        left = rest
        for k in range(j, -1, -1):
            if top + left < least:
                break
            left -= tops[k]
            at = _find(index.docs, starts[k], starts[k] + sizes[k], doc)
            if at >= 0:
                top += np.int32(parts[k]) * np.int32(index.caps[at])
        if top + left >= least:
            found[kept], bound_of[kept] = doc, top + left
            kept += 1
    sums[:] = 0
    return kept


@compiled()
def _comes_before(score, order, other_score, other_order):
    """The one order of passages: score falling, then id ascending."""
    return score > other_score or (score == other_score and order < other_order)


@compiled()
def _units(weights, n, units):
    """Weights as integers, rounded up; returns the factor from a score to such an integer sum."""
    total = 0.0
    for i in range(n):
        total += weights[i]
    for i in range(n):
        units[i] = np.int32(math.ceil(weights[i] / total * SCALE))
    return SCALE * 255.0 / total


@compiled()
def _least(score, factor):
    """The smallest integer bound that a passage with this score can have."""
    return max(1, np.int64(math.floor(np.float64(score) * factor * _SAFETY)) - 1)


@compiled()
def _sift(heap, size, at):
    """Moves a number down a heap with the smallest at its root."""
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[at] <= heap[child]:
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@compiled()
def _sort_down(numbers):
    """Sorts in place, the largest first; numpy's sorts take seconds to compile."""
    size = len(numbers)
    for root in range(size // 2 - 1, -1, -1):
        _sift(numbers, size, root)
    for last in range(size - 1, 0, -1):
        numbers[0], numbers[last] = numbers[last], numbers[0]
        _sift(numbers, last, 0)


@compiled()
def _kth_largest(numbers, k):
    """The k-th largest number, k from 1."""
    heap = numbers[:k].copy()
    for root in range(k // 2 - 1, -1, -1):
        _sift(heap, k, root)
    for number in numbers[k:]:
        if number > heap[0]:
            heap[0] = number
            _sift(heap, k, 0)
    return heap[0]


@compiled()
def _blocks_by_bound(bounds, first_block, end_block, least):
    """Of these blocks those that can hold a passage over the threshold, most promising first."""
    keys = np.empty(end_block - first_block, np.int64)
    size = 0
    for block in range(first_block, end_block):
        if bounds[block] >= least:
            keys[size] = np.int64(bounds[block]) * _BLOCKS + block
            size += 1
    keys = keys[:size]
    _sort_down(keys)
    return keys % _BLOCKS


@compiled()
def _most_terms(query_at, first, last):
    """The largest number of terms of these queries, at least 1."""
    most = 1
    for q in range(first, last):
        most = max(most, query_at[q + 1] - query_at[q])
    return most


@compiled()
def score_golds(
    index, inverse_norms, id_order, terms, weights, query_at, golds, golds_at, first, last,
    scores, orders,
):  # fmt: skip
    """Fills `scores[first:last]` and `orders[first:last]` with the score of the best gold passage
    of each query and its place in id order; score 0 where it matches nothing.

    terms, weights: distinct terms of all queries and what each can earn (`boost * idf`), query q at
    `query_at[q]:query_at[q + 1]`, the least valuable first; golds, golds_at: positions, likewise.
    """
    num_blocks = (len(index.lengths) + BLOCK - 1) // BLOCK
    most = _most_terms(query_at, first, last)
    entry_of, start_of, bounds, units, _ = _scratch(num_blocks, most)
    for q in range(first, last):
        n = query_at[q + 1] - query_at[q]
        own = terms[query_at[q] : query_at[q + 1]]
        w = weights[query_at[q] : query_at[q + 1]]
        score, order = np.float32(0), np.int64(0)
        for g in golds[golds_at[q] : golds_at[q + 1]]:
            block = g // BLOCK
            _lay_out(index, n, own, units, block, block + 1, entry_of, start_of, bounds)
            s = _score(index, inverse_norms, block, g % BLOCK, n, own, w, entry_of, start_of)
            if _comes_before(s, id_order[g], score, order):
                score, order = s, np.int64(id_order[g])
        scores[q], orders[q] = score, order


@compiled()
def count_before(
    index, inverse_norms, id_order, terms, weights, query_at, scores, orders, topk, first_block,
    end_block, first, last, counts,
):  # fmt: skip
    """Fills `counts[first:last]` with how many passages of the blocks come before the best gold
    passage of each query: exact below topk, else topk or more; topk where it matches nothing.
    scores, orders: found by `score_golds`, whose other arguments are the same."""
    most = _most_terms(query_at, first, last)
    entry_of, start_of, bounds, units, room = _scratch(end_block, most)
    found = room[0]
    for q in range(first, last):
        score, order = scores[q], orders[q]
        counts[q] = topk
        if not score > 0:
            continue
        n = query_at[q + 1] - query_at[q]
        own = terms[query_at[q] : query_at[q + 1]]
        w = weights[query_at[q] : query_at[q + 1]]
        least = _least(score, _units(w, n, units))
        _lay_out(index, n, own, units, first_block, end_block, entry_of, start_of, bounds)
        before = 0
        for block in _blocks_by_bound(bounds, first_block, end_block, least):
            count = _survivors(index, block, n, own, units, entry_of, start_of, least, room)
            for f in range(count):
                s = _score(index, inverse_norms, block, found[f], n, own, w, entry_of, start_of)
                before += _comes_before(s, id_order[block * BLOCK + found[f]], score, order)
            if before >= topk:
                break
        counts[q] = before


@compiled()
def _least_of_best(bounds, topk, units):
    """The smallest bound of a passage that can be among the topk, from the bounds of more than so
    many: a cap is less than 1.001 above the share it stands for, a unit less than 1 above."""
    looseness = 0
    for unit in units:
        looseness += unit + unit // 1000 + 256
    lowest = _kth_largest(bounds, topk) - looseness
    return max(1, np.int64(math.floor(lowest * _SAFETY)) - 1)


@compiled()
def _sift_down(scores, orders, docs, size, at):
    """Restores the heap with the last of the best passages at its root."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _comes_before(
            scores[child], orders[child], scores[child + 1], orders[child + 1]
        ):
            child += 1
        if not _comes_before(scores[at], orders[at], scores[child], orders[child]):
            return
        scores[at], scores[child] = scores[child], scores[at]
        orders[at], orders[child] = orders[child], orders[at]
        docs[at], docs[child] = docs[child], docs[at]
        at = child


@compiled()
def best_of(
    index, inverse_norms, id_order, terms, weights, topk, first_block, end_block, docs, scores
):
    """Writes the topk matching passages of the blocks for one query, in any order; returns how
    many there are. terms, weights: as for `score_golds`. docs, scores: of length topk."""
    n = len(terms)
    if n == 0:
        return 0
    entry_of, start_of, bounds, units, room = _scratch(end_block, n)
    found, bound_of = room[0], room[1]
    orders = np.empty(topk, np.int64)
    factor = _units(weights, n, units)
    _lay_out(index, n, terms, units, first_block, end_block, entry_of, start_of, bounds)
    size = 0
    least = np.int64(1)
    for block in _blocks_by_bound(bounds, first_block, end_block, 1):
        if bounds[block] < least:
            break
        count = _survivors(index, block, n, terms, units, entry_of, start_of, least, room)
        if count > topk:
            least = max(least, _least_of_best(bound_of[:count], topk, units))
        for f in range(count):
            if bound_of[f] < least:
                continue
            doc = block * BLOCK + found[f]
            score = _score(
                index, inverse_norms, block, found[f], n, terms, weights, entry_of, start_of
            )
            if not score > 0:
                continue
            if size < topk:
                at = size
                size += 1
                docs[at], scores[at], orders[at] = doc, score, id_order[doc]
                if size == topk:
                    for root in range(size // 2 - 1, -1, -1):
                        _sift_down(scores, orders, docs, size, root)
            elif _comes_before(score, id_order[doc], scores[0], orders[0]):
                docs[0], scores[0], orders[0] = doc, score, id_order[doc]
                _sift_down(scores, orders, docs, size, 0)
        if size == topk:
            least = max(least, _least(scores[0], factor))
    return size
