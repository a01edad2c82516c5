"""Vectors made to be hard to rank: equal ones, near-ties of one rounding step, a common part."""

from pathlib import Path

import numpy as np

from retriever_server.dense.exact_rank import Golds, RankEngine
from retriever_server.dense.formats import Floats, Format, decode, encode
from retriever_server.dense.vectors import Vectors, finish_vectors, write_shard


def make_vectors(
    folder: Path, values_ND: Floats, name: Format = "bfloat16", shard_rows: int = 4096
) -> Vectors:
    """Shards with these vectors, opened."""
    folder.mkdir(parents=True)
    shards = [
        write_shard(folder, number, values_ND[first : first + shard_rows], name)
        for number, first in enumerate(range(0, len(values_ND), shard_rows))
    ]
    finish_vectors(folder, shards, encoder_id="e" * 64, dim=values_ND.shape[1], name=name)
    return Vectors(folder)


def hard_values(num: int, dim: int, name: Format, seed: int = 0) -> Floats:
    """Around a common mean as real embeddings are; a fifth are copies of others, and another fifth
    differ from one in the last bit of one number."""
    rng = np.random.default_rng(seed)
    values_ND = rng.standard_normal((num, dim), dtype=np.float32) + 3 * rng.standard_normal(dim)
    values_ND = decode(encode(values_ND.astype(np.float32), name), name)
    fifth = num // 5
    rows = rng.permutation(num)
    copies, near, sources = rows[:fifth], rows[fifth : 2 * fifth], rows[2 * fifth :]
    values_ND[copies] = values_ND[rng.choice(sources[: max(1, fifth // 4)], fifth)]
    values_ND[near] = values_ND[rng.choice(sources[: max(1, fifth // 4)], fifth)]
    raw = encode(values_ND, name)
    bits = raw.view(np.uint32 if name == "float32" else np.uint16)
    bits[near, rng.integers(0, dim, fifth)] ^= 1
    return decode(raw, name)


def hard_queries(values_ND: Floats, num: int, seed: int = 1) -> tuple[Floats, list[list[int]]]:
    """Queries near a passage each, and one to three gold positions, that passage among them."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, len(values_ND), num)
    noise_QD = rng.standard_normal((num, values_ND.shape[1])) * rng.uniform(0.2, 3, (num, 1))
    golds = [[int(t), *rng.integers(0, len(values_ND), i % 3).tolist()]
             for i, t in enumerate(targets)]  # fmt: skip
    wanted_QD = values_ND[targets] - 0.7 * values_ND.mean(axis=0)
    return (wanted_QD + noise_QD).astype(np.float32), golds


def ranked_case(
    folder: Path, name: Format = "bfloat16"
) -> tuple[Vectors, Floats, np.ndarray, Floats, list[list[int]]]:
    """(vectors, values, id order, queries, golds): 9,001 passages of 96 dimensions, 150 queries."""
    values_ND = hard_values(9001, 96, name)
    queries_QD, golds = hard_queries(values_ND, 150)
    order_N = np.random.default_rng(3).permutation(len(values_ND))
    return make_vectors(folder / "v", values_ND, name), values_ND, order_N, queries_QD, golds


def brute_ranks(
    values_ND: Floats, id_order_N: np.ndarray, queries_QD: Floats, golds: list[list[int]], topk: int
) -> list[int | None]:
    """By definition: all scores in double precision, ordered by score falling and id order."""
    doubles_ND = values_ND.astype(np.float64)
    ranks: list[int | None] = []
    for first in range(0, len(queries_QD), 128):
        scores_QN = queries_QD[first : first + 128].astype(np.float64) @ doubles_ND.T
        for scores_N, gold in zip(scores_QN, golds[first : first + 128], strict=True):
            best = min(gold, key=lambda g: (-scores_N[g], id_order_N[g]))
            before = int((scores_N > scores_N[best]).sum())
            tied = np.flatnonzero(scores_N == scores_N[best])
            before += int((id_order_N[tied] < id_order_N[best]).sum())
            ranks.append(before + 1 if before < topk else None)
    return ranks


def ranks_of(
    engine: RankEngine, queries_QD: Floats, golds: list[list[int]], topk: int
) -> list[int | None]:
    """The engine's ranks."""
    best = [engine.best(query, gold) for query, gold in zip(queries_QD, golds, strict=True)]
    counts = engine.count_before(
        queries_QD,
        Golds(
            score_Q=np.asarray([score for score, _ in best]),
            order_Q=np.asarray([order for _, order in best]),
        ),
        topk,
    )
    return [count + 1 if count < topk else None for count in counts.tolist()]
