"""The filters of self-distillation and the held-out conversations."""

from hypothesis import given, settings
from hypothesis import strategies as st

from convsearch.distill.selection import (
    VERDICTS,
    count_verdicts,
    judge,
    validation_conversations,
    worth_ranking,
)
from convsearch.types import Rewrite, Turn


def rewrite(qid: str, candidate: int, text: str | None, status: str = "ok") -> Rewrite:
    return Rewrite(
        qid=qid, candidate=candidate, status=status, text=text, response=text or "", seed=0
    )


def turns(num_conversations: int) -> list[Turn]:
    return [
        Turn(qid=f"q{i}.{j}", conv_id=f"c{i}", turn=j + 1, split="train", question="?")
        for i in range(num_conversations)
        for j in range(3)
    ]


def test_each_filter_in_its_order():
    made = [
        rewrite("q", 0, None, "malformed"),
        rewrite("q", 1, None, "failed"),
        rewrite("q", 2, "third"),
        rewrite("q", 3, "first"),
        rewrite("q", 4, "first"),
        rewrite("q", 5, "nowhere"),
        rewrite("q", 6, "also first"),
        rewrite("other", 0, "first"),
    ]
    assert [r.candidate for r in worth_ranking(made)] == [2, 3, 5, 6, 0]
    ranks = {("q", 2): 3, ("q", 3): 1, ("q", 5): None, ("q", 6): 1, ("other", 0): 1}
    verdicts = judge(made, ranks, max_rank=1, keep_per_turn=1)
    assert [verdicts["q", c] for c in range(7)] == [
        "malformed", "failed", "rank_too_low", "kept", "duplicate", "not_found", "surplus",
    ]  # fmt: skip
    assert verdicts["other", 0] == "kept"
    deeper = judge(made, ranks, max_rank=3, keep_per_turn=3)
    assert [deeper["q", c] for c in (2, 3, 6)] == ["kept"] * 3
    best = judge(made, {**ranks, ("q", 3): 2, ("q", 6): 1}, max_rank=3, keep_per_turn=1)
    assert (best["q", 3], best["q", 6]) == ("surplus", "kept")


CANDIDATES = st.tuples(
    st.sampled_from(["ok", "ok", "ok", "malformed", "failed"]),
    st.sampled_from("abcd"),
    st.one_of(st.none(), st.integers(1, 6)),
)


@settings(deadline=None)
@given(
    st.lists(st.lists(CANDIDATES, min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_every_candidate_has_one_verdict_and_only_good_ones_are_kept(world, max_rank, keep):
    made, rank_of_text = [], {}
    for i, candidates in enumerate(world):
        for j, (status, text, rank) in enumerate(candidates):
            made.append(rewrite(f"q{i}", j, text if status == "ok" else None, status))
            rank_of_text.setdefault((f"q{i}", text), rank)
    ranked = worth_ranking(made)
    ranks = {(r.qid, r.candidate): rank_of_text[r.qid, r.text] for r in ranked}
    verdicts = judge(made, ranks, max_rank=max_rank, keep_per_turn=keep)
    assert set(verdicts) == {(r.qid, r.candidate) for r in made}
    counted = count_verdicts(verdicts)
    assert sum(counted.values()) == len(made)
    assert set(counted) == set(VERDICTS)
    for i in range(len(world)):
        good = sorted(
            (rank, c)
            for (q, c), rank in ranks.items()
            if q == f"q{i}" and rank and rank <= max_rank
        )
        kept = [c for (q, c), v in verdicts.items() if q == f"q{i}" and v == "kept"]
        assert sorted(kept) == sorted(c for _, c in good[:keep])
        texts = [r.text for r in made if r.qid == f"q{i}" and r.candidate in kept]
        assert len(texts) == len(set(texts))


def test_the_held_out_share_is_of_conversations_and_stable():
    many = turns(2000)
    held_out = validation_conversations(many, fraction=0.05, seed=0)
    assert 60 <= len(held_out) <= 140
    assert held_out == validation_conversations(many[::-1], fraction=0.05, seed=0)
    assert held_out != validation_conversations(many, fraction=0.05, seed=1)
    half = [t for t in many if int(t.conv_id[1:]) % 2]
    expected = {c for c in held_out if int(c[1:]) % 2}
    assert validation_conversations(half, fraction=0.05, seed=0) == expected


def test_there_is_always_one_on_each_side():
    for count in range(2, 40):
        for fraction in (1e-9, 0.5, 1 - 1e-9):
            held_out = validation_conversations(turns(count), fraction=fraction, seed=count)
            assert 1 <= len(held_out) <= count - 1
    assert validation_conversations(turns(1), fraction=0.5, seed=0) == set()
