"""Self-driven policy warm-up (ConvSearch-R1, arXiv 2505.15776, section 3.2).

The initial policy itself writes candidates from a few-shot prompt; those in the right format that
put a gold passage at rank 1 are what it is then fine-tuned on. No reference rewrite takes part.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.data.parquet import write_sft_parquet
from convsearch.distill.selection import (
    Key,
    Verdict,
    count_verdicts,
    judge,
    validation_conversations,
    worth_ranking,
)
from convsearch.errors import ConfigError, DataError, StageError
from convsearch.files import Qrels, gold_ids, write_jsonl
from convsearch.infer.engine import Engine, SamplingParams
from convsearch.infer.runner import Progress, infer_rewrites
from convsearch.made import Output, fingerprint
from convsearch.passport import write_passport
from convsearch.prompts import TrainedStyle, format_response, parse_rewrite
from convsearch.prompts.asking import Asking
from convsearch.retrieval import Retriever
from convsearch.retrieval.identity import index_identity
from convsearch.retrieval.info import index_name
from convsearch.types import Rewrite, Turn

STAGE = "distill"
QUERIES_PER_CALL = 256
"""Rewrites that are ranked by one call of the retriever."""


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """How candidates are made and chosen. Raises ConfigError for values outside their range."""

    style: TrainedStyle
    """Prompt of the examples. `instruct` candidates are asked for with a worked example, and
    learnt without it."""
    candidates: int = 8
    """Rewrites drawn for each turn."""
    temperature: float = 0.7
    """Of the draw; above 0, or all candidates are the same."""
    top_p: float = 1.0
    """Of the draw."""
    max_tokens: int = 1024
    """Longest response."""
    max_rank: int = 1
    """A candidate is good if a gold passage ranks here or better; the paper takes 1."""
    keep_per_turn: int = 1
    """Good candidates of one turn that become examples: best rank, then first drawn."""
    val_fraction: float = 0.05
    """Share of the conversations that is held out for validation; at least one is."""
    topk: int = 100
    """Depth to which a gold passage is looked for."""
    batch_size: int = 64
    """Prompts of one block of inference."""
    seed: int = 0
    """Of the draw and of the split."""

    def __post_init__(self) -> None:
        for name in ("candidates", "max_rank", "keep_per_turn", "topk", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.max_rank > self.topk:
            raise ConfigError(f"max_rank {self.max_rank} is deeper than topk {self.topk}")
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction must be between 0 and 1, got {self.val_fraction}")
        if self.candidates > 1 and self.temperature == 0:
            raise ConfigError("several candidates at temperature 0 are all the same; raise it")

    @property
    def shots(self) -> int:
        """Worked examples in the prompt of the draw."""
        return 1 if self.style == "instruct" else 0

    @property
    def params(self) -> SamplingParams:
        """Sampling of the draw."""
        return SamplingParams(
            temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens
        )


@dataclass(frozen=True, kw_only=True)
class DistillCounts:
    """What became of every candidate and turn. The verdicts sum to `candidates`."""

    turns: int
    candidates: int
    malformed: int
    failed: int
    duplicate: int
    not_found: int
    rank_too_low: int
    surplus: int
    kept: int
    turns_kept: int
    """Turns with at least one example."""
    train: int
    """Examples of `sft_train.parquet`."""
    val: int
    """Examples of `sft_val.parquet`."""
    train_conversations: int
    val_conversations: int


def self_distill(
    turns: Sequence[Turn],
    qrels: Qrels,
    engine: Engine,
    retriever: Retriever,
    settings: DistillSettings,
    out_dir: Path,
    *,
    fresh: bool = False,
    retry_failed: bool = False,
    search: Mapping[str, object] | None = None,
    dataset: str | None = None,
    told: Asking | None = None,
    inputs: Sequence[Path] = (),
    on_progress: Progress | None = None,
) -> DistillCounts:
    """Writes rewrites.jsonl, ranks.jsonl (one line a candidate: qid, candidate, rank, verdict),
    sft_train.parquet, sft_val.parquet and run.json into out_dir.

    turns: of the training split; `fresh`, `retry_failed`, `inputs` as in `infer_rewrites`. What was
    made by the same settings, from the same turns, model and index, is kept as it is.
    search: what ranked, for the passport. dataset: its name, which the examples carry. told: what
    the model's folder says of how to ask it. Raises ConfigError where out_dir holds something else,
    DataError for a turn without qrels, StageError
    where fewer than two conversations have an example (rewrites and ranks stay for a look), and
    whatever engine and retriever raise.
    """
    started = time.monotonic()
    golds = {turn.qid: gold_ids(qrels, turn.qid) for turn in turns}
    without = next((qid for qid, ids in golds.items() if not ids), None)
    if without is not None:
        raise DataError(f"qid {without!r} has no relevant passage in the qrels; mend the qrels")
    output = _output(turns, golds, engine, retriever, settings, out_dir, search)
    standing = output.standing(fresh=fresh, free=output.made_of, kept=not retry_failed)
    if standing == "finished" and not retry_failed:
        return DistillCounts(**output.counts())
    output.begin(fresh=fresh)
    rewrites = infer_rewrites(
        turns,
        engine,
        out_path=out_dir / "rewrites.jsonl",
        style=settings.style,
        shots=settings.shots,
        params=settings.params,
        seed=settings.seed,
        candidates=settings.candidates,
        batch_size=settings.batch_size,
        fresh=fresh,
        retry_failed=retry_failed,
        inputs=inputs,
        told=told,
        on_progress=on_progress,
    )
    ranks = _rank(worth_ranking(rewrites), golds, retriever, settings.topk)
    verdicts = judge(
        rewrites, ranks, max_rank=settings.max_rank, keep_per_turn=settings.keep_per_turn
    )
    _write_ranks(out_dir / "ranks.jsonl", rewrites, ranks, verdicts)
    by_qid = {turn.qid: turn for turn in turns}
    examples = [
        (by_qid[r.qid], _response(r)) for r in rewrites if verdicts[r.qid, r.candidate] == "kept"
    ]
    kept_turns = [turn for turn, _ in examples]
    if len({turn.conv_id for turn in kept_turns}) < 2:
        raise StageError(
            f"{out_dir / 'ranks.jsonl'}: {len(examples)} of {len(rewrites)} candidates are good "
            f"({_tell(verdicts)}), too few to train and validate on; draw more candidates, raise "
            "max_rank, or take more turns"
        )
    held_out = validation_conversations(
        kept_turns, fraction=settings.val_fraction, seed=settings.seed
    )
    train = [example for example in examples if example[0].conv_id not in held_out]
    val = [example for example in examples if example[0].conv_id in held_out]
    known = {
        "dataset": dataset,
        "max_response_tokens": settings.max_tokens,
        **_ranked_by(search or {}),
    }
    for name, part in (("sft_train", train), ("sft_val", val)):
        write_sft_parquet(out_dir / f"{name}.parquet", part, style=settings.style, known=known)
    counts = DistillCounts(
        turns=len(turns),
        candidates=len(rewrites),
        **count_verdicts(verdicts),
        turns_kept=len({turn.qid for turn in kept_turns}),
        train=len(train),
        val=len(val),
        train_conversations=len({turn.conv_id for turn, _ in train}),
        val_conversations=len({turn.conv_id for turn, _ in val}),
    )
    write_passport(
        out_dir / "run.json",
        stage=STAGE,
        settings={**asdict(settings), "engine": dict(engine.identity), "search": search},
        inputs=inputs,
        counts=asdict(counts),
        seed=settings.seed,
        seconds=round(time.monotonic() - started, 3),
        made=output.record,
    )
    output.end()
    return counts


def _output(
    turns: Sequence[Turn],
    golds: Mapping[str, Sequence[str]],
    engine: Engine,
    retriever: Retriever,
    settings: DistillSettings,
    out_dir: Path,
    search: Mapping[str, object] | None,
) -> Output:
    """What is to be made. An attempt may be gone on with under other settings: all that it has left
    are the candidates, and whether they are the ones asked for is told by a journal or a passport
    of their own."""
    asked = {turn.qid: [asdict(turn), sorted(golds[turn.qid])] for turn in turns}
    shaping = {name: value for name, value in asdict(settings).items() if name != "batch_size"}
    return Output(
        passport=out_dir / "run.json",
        command=STAGE,
        made_of={
            **shaping,
            "turns": fingerprint(asked),
            "engine": dict(engine.identity),
            "index": index_identity(retriever, (search or {}).get("retriever")),
        },
        results=("ranks.jsonl", "sft_train.parquet", "sft_val.parquet"),
    )


def _rank(
    rewrites: Sequence[Rewrite],
    golds: dict[str, list[str]],
    retriever: Retriever,
    topk: int,
) -> dict[Key, int | None]:
    ranks: dict[Key, int | None] = {}
    for start in range(0, len(rewrites), QUERIES_PER_CALL):
        chunk = rewrites[start : start + QUERIES_PER_CALL]
        found = retriever.ranks([r.text or "" for r in chunk], [golds[r.qid] for r in chunk], topk)
        ranks.update({(r.qid, r.candidate): rank for r, rank in zip(chunk, found, strict=True)})
    return ranks


def _ranked_by(search: Mapping[str, object]) -> dict[str, object]:
    """What ranked, in the words of Asking; a path stays on this machine."""
    info = search.get("engine")
    if not isinstance(info, Mapping):
        return {}
    return {
        "engine": info.get("engine"),
        "index": index_name(str(search.get("retriever"))),
        "index_fingerprint": info.get("fingerprint"),
    }


def _response(rewrite: Rewrite) -> str:
    """The response to learn, written anew from its parsed parts."""
    parsed = parse_rewrite(rewrite.response)
    if parsed is None:
        raise StageError(f"qid {rewrite.qid!r}: status is ok and the response does not parse")
    return format_response(parsed.think, parsed.rewrite)


def _write_ranks(
    path: Path,
    rewrites: Sequence[Rewrite],
    ranks: dict[Key, int | None],
    verdicts: dict[Key, Verdict],
) -> None:
    write_jsonl(
        path,
        (
            {
                "qid": r.qid,
                "candidate": r.candidate,
                "rank": ranks.get((r.qid, r.candidate)),
                "verdict": verdicts[r.qid, r.candidate],
            }
            for r in rewrites
        ),
    )


def _tell(verdicts: dict[Key, Verdict]) -> str:
    return ", ".join(f"{name} {count}" for name, count in count_verdicts(verdicts).items() if count)
