"""Which candidates are worth imitating, and which conversations are held out. Pure."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from convsearch.types import Rewrite, Turn

Verdict = Literal[
    "malformed", "failed", "duplicate", "not_found", "rank_too_low", "surplus", "kept"
]
"""The first filter that a candidate fails, in this order; `kept` fails none. `duplicate`: a former
candidate of the turn has the same rewrite. `surplus`: enough better ones of the turn were kept."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

Key = tuple[str, int]
"""(qid, candidate)."""


def worth_ranking(rewrites: Sequence[Rewrite]) -> list[Rewrite]:
    """The well-formed candidates, each different rewrite of a turn once: the first of them."""
    seen: dict[tuple[str, str], Rewrite] = {}
    for rewrite in rewrites:
        if rewrite.status == "ok" and rewrite.text is not None:
            seen.setdefault((rewrite.qid, rewrite.text), rewrite)
    return list(seen.values())


def judge(
    rewrites: Sequence[Rewrite],
    ranks: Mapping[Key, int | None],
    *,
    max_rank: int,
    keep_per_turn: int,
) -> dict[Key, Verdict]:
    """The verdict on every candidate.

    ranks: of each candidate of `worth_ranking`. Within a turn the best rank is kept first, then
    the first candidate.
    """
    verdicts: dict[Key, Verdict] = {}
    good: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for rewrite in rewrites:
        key = (rewrite.qid, rewrite.candidate)
        if rewrite.status != "ok":
            verdicts[key] = rewrite.status
        elif key not in ranks:
            verdicts[key] = "duplicate"
        else:
            rank = ranks[key]
            if rank is None:
                verdicts[key] = "not_found"
            elif rank > max_rank:
                verdicts[key] = "rank_too_low"
            else:
                verdicts[key] = "surplus"
                good[rewrite.qid].append((rank, rewrite.candidate))
    for qid, candidates in good.items():
        for _, candidate in sorted(candidates)[:keep_per_turn]:
            verdicts[qid, candidate] = "kept"
    return verdicts


def count_verdicts(verdicts: Mapping[Key, Verdict]) -> dict[Verdict, int]:
    """How many candidates have each verdict; all verdicts are named."""
    counted = Counter(verdicts.values())
    return {name: counted[name] for name in VERDICTS}


def validation_conversations(turns: Sequence[Turn], *, fraction: float, seed: int) -> set[str]:
    """Conversations to hold out: those whose hash falls under the fraction.

    A conversation's side depends on its id and the seed, not on the others; where the hash leaves
    one side empty, the nearest conversation changes over. With a single conversation, none.
    """
    shares = {turn.conv_id: _share(turn.conv_id, seed) for turn in turns}
    nearest_first = sorted(shares, key=lambda conv: (shares[conv], conv))
    count = sum(share < fraction for share in shares.values())
    return set(nearest_first[: min(max(count, 1), len(shares) - 1)])


def _share(conv_id: str, seed: int) -> float:
    """A number in [0, 1) that belongs to this conversation."""
    digest = hashlib.sha256(f"{seed}\x1fvalidation\x1f{conv_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
