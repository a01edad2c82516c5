"""The whole stage with a real model, a real ranking and real parquet files."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rewriting import some_turns
from tiny_model import WORDS

from convsearch.data.parquet import read_rows_asking
from convsearch.distill import DistillCounts, DistillSettings, self_distill
from convsearch.errors import ConfigError, DataError, EngineError, StageError
from convsearch.files import Qrels, read_jsonl, read_rewrites
from convsearch.infer import Engine, Generation, open_engine
from convsearch.infer.echo_engine import EchoEngine
from convsearch.prompts import parse_rewrite, rewrite_messages
from convsearch.prompts.asking import asking_of
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage, Turn

TURNS = some_turns(36)
SETTINGS = DistillSettings(
    style="nano", candidates=6, temperature=1.0, max_tokens=24, max_rank=3, val_fraction=0.2, seed=4
)


def world() -> tuple[InMemoryRetriever, Qrels]:
    """Forty passages of two words; three of them are right for each turn, by chance."""
    rng = random.Random(0)
    passages = [
        Passage(doc_id=f"d{i}", title="", text=f"{word} {rng.choice(WORDS)}")
        for i, word in enumerate(WORDS)
    ]
    qrels = {t.qid: {p.doc_id: 1 for p in rng.sample(passages, 3)} for t in TURNS}
    return InMemoryRetriever(passages), qrels


ASKING = asking_of(
    "nano",
    max_response_tokens=24,
    dataset="toy",
    engine="memory",
    index="idx",
    index_fingerprint=world()[0].info.fingerprint,
)
"""What the examples say, and by them the model that is trained on them."""


@pytest.fixture(scope="module")
def engine(taught_model: Path) -> Engine:
    return open_engine("transformers", str(taught_model), device="cpu")


@pytest.fixture(scope="module")
def distilled(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, DistillCounts]:
    out = tmp_path_factory.mktemp("distill")
    retriever, qrels = world()
    search = {"retriever": "somewhere/idx", "engine": asdict(retriever.info)}
    return out, self_distill(
        TURNS, qrels, engine, retriever, SETTINGS, out, search=search, dataset="toy"
    )


def test_every_candidate_is_accounted_for(distilled):
    out, counts = distilled
    rewrites = read_rewrites(out / "rewrites.jsonl")
    ranks = [record for _, record in read_jsonl(out / "ranks.jsonl")]
    assert len(rewrites) == len(ranks) == counts.candidates == 36 * 6
    assert counts.turns == 36
    verdicts = [r["verdict"] for r in ranks]
    filters = ("malformed", "failed", "duplicate", "not_found", "rank_too_low", "surplus", "kept")
    assert [verdicts.count(name) for name in filters] == [getattr(counts, n) for n in filters]
    assert sum(getattr(counts, name) for name in filters) == counts.candidates
    assert counts.kept == counts.turns_kept == counts.train + counts.val > 5
    assert counts.malformed > 0
    passport = json.loads((out / "run.json").read_text())
    assert passport["counts"] == asdict(counts)
    assert passport["settings"]["max_rank"] == 3


def test_kept_means_a_right_passage_at_a_good_rank(distilled):
    out, _ = distilled
    retriever, qrels = world()
    texts = {(r.qid, r.candidate): r.text for r in read_rewrites(out / "rewrites.jsonl")}
    for _, record in read_jsonl(out / "ranks.jsonl"):
        key = (str(record["qid"]), record["candidate"])
        if record["verdict"] in ("kept", "surplus", "rank_too_low", "not_found"):
            [rank] = retriever.ranks([texts[key]], [list(qrels[key[0]])], 100)
            assert record["rank"] == rank
            good = rank is not None and rank <= 3
            assert good == (record["verdict"] in ("kept", "surplus"))
        else:
            assert record["rank"] is None


def test_examples_hold_the_zero_shot_prompt_and_the_models_own_words(distilled):
    out, counts = distilled
    responses = {r.response for r in read_rewrites(out / "rewrites.jsonl")}
    by_qid = {t.qid: t for t in TURNS}
    conversations = {}
    for name, size in (("train", counts.train), ("val", counts.val)):
        rows = pq.read_table(out / f"sft_{name}.parquet").to_pylist()
        assert len(rows) == size > 0
        assert read_rows_asking(out / f"sft_{name}.parquet") == ASKING
        for row in rows:
            *prompt, answer = row["messages"]
            turn = by_qid[row["extra_info"]["query_id"]]
            assert prompt == rewrite_messages(turn, "nano")
            assert answer["role"] == "assistant"
            assert parse_rewrite(answer["content"]) is not None
            assert answer["content"] in responses
        conversations[name] = {by_qid[row["extra_info"]["query_id"]].conv_id for row in rows}
    assert not conversations["train"] & conversations["val"]
    assert counts.train_conversations == len(conversations["train"])
    assert counts.val_conversations == len(conversations["val"]) >= 1


def test_a_second_call_draws_nothing_and_gives_the_same(distilled):
    out, counts = distilled

    class Idle(EchoEngine):
        identity = json.loads((out / "run.json").read_text())["settings"]["engine"]

        def generate(self, chats, params, seeds):
            raise AssertionError("nothing is left to draw")

    before = {path.name: path.read_bytes() for path in out.glob("*.jsonl")}
    retriever, qrels = world()
    assert self_distill(TURNS, qrels, Idle(), retriever, SETTINGS, out) == counts
    assert {path.name: path.read_bytes() for path in out.glob("*.jsonl")} == before


def test_instruct_asks_with_a_worked_example_and_teaches_without_it(tmp_path: Path):
    asked: list[list[dict[str, str]]] = []

    class Listening(EchoEngine):
        def generate(self, chats, params, seeds):
            asked.extend(chats)
            return super().generate(chats, params, seeds)

    turns = TURNS[:12]
    qrels = {t.qid: {"right": 1} for t in turns}
    retriever = InMemoryRetriever([Passage(doc_id="right", title="", text=" ".join(WORDS))])
    settings = DistillSettings(style="instruct", candidates=2)
    counts = self_distill(turns, qrels, Listening(), retriever, settings, tmp_path)
    assert all(
        [m["role"] for m in chat] == ["system", "user", "assistant", "user"] for chat in asked
    )
    assert counts.kept == counts.duplicate == 12
    rows = pq.read_table(tmp_path / "sft_train.parquet").to_pylist()
    for row in rows:
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]


def test_too_few_good_ones_are_a_sentence_with_the_counts(tmp_path: Path):
    qrels = {t.qid: {"wrong": 1} for t in TURNS}
    passages = [
        Passage(doc_id="wrong", title="", text="something else"),
        Passage(doc_id="d", title="", text=" ".join(WORDS)),
    ]
    with pytest.raises(StageError, match=r"ranks\.jsonl: 0 of 72 .*not_found 36.*raise max_rank"):
        self_distill(
            TURNS,
            qrels,
            EchoEngine(),
            InMemoryRetriever(passages),
            DistillSettings(style="nano", candidates=2),
            tmp_path,
        )
    assert (tmp_path / "ranks.jsonl").is_file()
    assert not (tmp_path / "sft_train.parquet").exists()


class NoEngine(EchoEngine):
    def generate(
        self, chats: Sequence[object], params: object, seeds: Sequence[int]
    ) -> list[Generation]:
        raise AssertionError("nothing may be drawn before the data is checked")


@pytest.mark.parametrize(
    ("judged", "said"), [({}, "has no line in the qrels"), ({"d0": 0}, "no relevant passage")]
)
def test_a_turn_without_gold_is_named_before_anything_is_drawn(
    judged: dict[str, int], said: str, tmp_path: Path
):
    retriever, qrels = world()
    qrels.pop("q5")
    if judged:
        qrels["q5"] = judged
    with pytest.raises(DataError, match=f"'q5'.*{said}"):
        self_distill(TURNS, qrels, NoEngine(), retriever, SETTINGS, tmp_path)
    assert list(tmp_path.iterdir()) == []


class Deaf(EchoEngine):
    """Answers nothing, for a reason."""

    def generate(self, chats, params, seeds) -> list[Generation]:
        return [Generation(error="HTTP 503: closed") for _ in chats]


def test_where_nothing_is_answered_nothing_is_made_of_it(tmp_path: Path):
    retriever, qrels = world()
    with pytest.raises(EngineError, match=r"no answer to any of 216 requests.*HTTP 503: closed"):
        self_distill(TURNS, qrels, Deaf(), retriever, SETTINGS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["attempt.json"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"candidates": 0}, "candidates"),
        ({"max_rank": 101}, "deeper than topk"),
        ({"val_fraction": 0.0}, "val_fraction"),
        ({"temperature": 0.0}, "all the same"),
    ],
)
def test_impossible_settings_are_refused(values: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        DistillSettings(style="nano", **values)


def test_turns_keep_no_trace_of_a_reference(distilled):
    """No field of a turn could hold a reference rewrite, an answer or a gold passage."""
    assert set(Turn.__dataclass_fields__) == {
        "qid", "conv_id", "turn", "split", "question", "history",
    }  # fmt: skip


def test_other_settings_or_another_index_are_refused_and_nothing_is_drawn(
    engine: Engine, tmp_path: Path
):
    retriever, qrels = world()
    counts = self_distill(TURNS, qrels, engine, retriever, SETTINGS, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = InMemoryRetriever([Passage(doc_id=f"d{i}", title="", text="x") for i in range(40)])
    refused = [
        (replace(SETTINGS, max_rank=2), retriever, qrels, r"max_rank \(there 3, now 2\)"),
        (replace(SETTINGS, val_fraction=0.3), retriever, qrels, "val_fraction"),
        (replace(SETTINGS, candidates=7), retriever, qrels, r"candidates \(there 6, now 7\)"),
        (SETTINGS, other, qrels, r"index\.fingerprint \(there"),
        (SETTINGS, retriever, {**qrels, TURNS[0].qid: {"d0": 1}}, r"turns \(there content"),
    ]
    for settings, searched, judged, sentence in refused:
        with pytest.raises(ConfigError, match=rf"was made with other settings: .*{sentence}"):
            self_distill(TURNS, judged, engine, searched, settings, tmp_path)
    again = replace(SETTINGS, batch_size=5)
    assert self_distill(TURNS, qrels, engine, retriever, again, tmp_path) == counts
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    wider = replace(SETTINGS, max_rank=5)
    assert self_distill(TURNS, qrels, engine, retriever, wider, tmp_path, fresh=True) != counts


def test_what_is_too_little_may_be_chosen_again_from_the_same_candidates(
    engine: Engine, tmp_path: Path
):
    retriever, qrels = world()
    nothing = {turn.qid: {"d39": 1} for turn in TURNS}
    with pytest.raises(StageError, match="too few to train"):
        self_distill(TURNS, nothing, engine, retriever, replace(SETTINGS, max_rank=1), tmp_path)
    drawn = (tmp_path / "rewrites.jsonl").stat()
    self_distill(TURNS, qrels, engine, retriever, SETTINGS, tmp_path)
    assert (tmp_path / "rewrites.jsonl").stat().st_mtime_ns == drawn.st_mtime_ns
    assert not (tmp_path / "attempt.json").exists()
