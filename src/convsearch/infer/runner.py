"""From turns to rewrites: one record for every turn and candidate, resumable at any moment.

Work is cut into fixed blocks of the input, and a block is made whole or not at all. So a sample has
the same neighbours in its batch, and the same rounding, in a run that was killed and taken up again
as in an unbroken one: both write the same bytes.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from convsearch.errors import ConfigError, DataError, EngineError
from convsearch.files import read_rewrites, write_rewrites
from convsearch.infer.engine import Engine, Generation, SamplingParams
from convsearch.infer.journal import Journal, Key, Settings, check_same_settings, journal_path
from convsearch.passport import write_passport
from convsearch.prompts import PromptStyle, parse_rewrite, rewrite_messages
from convsearch.types import ChatMessage, Rewrite, Turn, derive_seed

Progress = Callable[[int, int], None]
"""(samples done, samples in all)."""


@dataclass(frozen=True, kw_only=True)
class _Sample:
    qid: str
    candidate: int
    chat: list[ChatMessage]
    seed: int

    @property
    def key(self) -> Key:
        return self.qid, self.candidate


def passport_path(out_path: Path) -> Path:
    """Where the passport of a rewrites file lies: `rewrites.run.json` beside `rewrites.jsonl`."""
    return out_path.with_name(f"{out_path.name.partition('.')[0]}.run.json")


def infer_rewrites(
    turns: Sequence[Turn],
    engine: Engine,
    *,
    out_path: Path,
    style: PromptStyle,
    params: SamplingParams,
    seed: int,
    shots: int = 0,
    candidates: int = 1,
    batch_size: int = 64,
    fresh: bool = False,
    retry_failed: bool = False,
    inputs: Sequence[Path] = (),
    on_progress: Progress | None = None,
) -> list[Rewrite]:
    """Writes `rewrites.jsonl`: `candidates` records for each turn, in the order of the input.

    A run that was interrupted goes on where it stopped; a finished one is returned as it is.
    fresh: start over instead. retry_failed: ask again where an earlier run got no response;
    malformed responses stay what they are. inputs: files that the turns came from, for the
    passport. Raises ConfigError where the output was made with other settings, and whatever the
    engine raises; finished blocks are kept.
    """
    started = time.monotonic()
    samples = _plan(turns, style, shots, seed, candidates)
    settings = _settings(samples, engine, style, shots, params, seed, candidates, batch_size)
    done = {} if fresh else _finished(out_path, settings, samples)
    journal_at = journal_path(out_path)
    if fresh:
        journal_at.unlink(missing_ok=True)
    if done and not retry_failed:
        return [done[s.key] for s in samples]
    out_path.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(journal_at, settings)
    try:
        if done:
            journal.append([done[s.key] for s in samples])
        blocks = [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]
        todo = [block for block in blocks if any(s.key not in journal.records for s in block)]
        if retry_failed:
            failed = [s for s in samples if _has_failed(journal.records.get(s.key))]
            todo += [failed[i : i + batch_size] for i in range(0, len(failed), batch_size)]
        left = sum(map(len, todo))
        for block in todo:
            if on_progress:
                on_progress(len(samples) - left, len(samples))
            journal.append(_make(block, engine, params))
            left -= len(block)
        if on_progress:
            on_progress(len(samples), len(samples))
    finally:
        journal.close()
    rewrites = [journal.records[s.key] for s in samples]
    write_rewrites(out_path, rewrites)
    write_passport(
        passport_path(out_path),
        stage="infer",
        settings=settings,
        inputs=inputs,
        counts=count_statuses(rewrites),
        seed=seed,
        seconds=round(time.monotonic() - started, 3),
    )
    journal_at.unlink()
    return rewrites


def count_statuses(rewrites: Sequence[Rewrite]) -> dict[str, int]:
    """How many records there are, and of each status."""
    statuses = Counter(r.status for r in rewrites)
    return {
        "rewrites": len(rewrites),
        **{name: statuses[name] for name in ("ok", "malformed", "failed")},
    }


def _plan(
    turns: Sequence[Turn], style: PromptStyle, shots: int, seed: int, candidates: int
) -> list[_Sample]:
    if candidates < 1:
        raise ConfigError(f"candidates must be 1 or more, got {candidates}")
    if not turns:
        raise DataError("there are no turns to rewrite; check the file and the split")
    qids = Counter(turn.qid for turn in turns)
    twice = [qid for qid, count in qids.items() if count > 1]
    if twice:
        raise DataError(f"qid {twice[0]!r} occurs twice among the turns; ids must be unique")
    samples = []
    for turn in turns:
        chat = rewrite_messages(turn, style, shots=shots)
        for candidate in range(candidates):
            sample_seed = derive_seed(seed, turn.qid, candidate)
            samples.append(_Sample(qid=turn.qid, candidate=candidate, chat=chat, seed=sample_seed))
    return samples


def _settings(
    samples: Sequence[_Sample],
    engine: Engine,
    style: PromptStyle,
    shots: int,
    params: SamplingParams,
    seed: int,
    candidates: int,
    batch_size: int,
) -> Settings:
    """All that decides the output's bytes, as JSON returns it."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more, got {batch_size}")
    prompts = hashlib.sha256()
    for sample in samples:
        prompts.update(json.dumps([sample.qid, sample.candidate, sample.chat]).encode())
    settings = {
        "engine": dict(engine.identity),
        "style": style,
        "shots": shots,
        "sampling": asdict(params),
        "seed": seed,
        "candidates": candidates,
        "batch_size": batch_size,
        "samples": len(samples),
        "prompts_sha256": prompts.hexdigest(),
    }
    return json.loads(json.dumps(settings))


def _finished(out_path: Path, settings: Settings, samples: Sequence[_Sample]) -> dict[Key, Rewrite]:
    """The records of a finished run with these settings; empty where there is none yet."""
    if journal_path(out_path).is_file() or not out_path.exists():
        return {}
    passport = passport_path(out_path)
    try:
        found = json.loads(passport.read_text(encoding="utf-8"))["settings"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        raise ConfigError(
            f"{out_path}: exists, and {passport.name} beside it does not say how it was made. "
            "Write over it with --fresh, or name another output"
        ) from None
    check_same_settings(out_path, found, settings)
    records = {(r.qid, r.candidate): r for r in read_rewrites(out_path)}
    if [s.key for s in samples] != list(records):
        raise DataError(
            f"{out_path}: its records are not those that {passport.name} tells of; "
            "start over with --fresh"
        )
    return records


def _make(block: Sequence[_Sample], engine: Engine, params: SamplingParams) -> list[Rewrite]:
    generations = engine.generate([s.chat for s in block], params, [s.seed for s in block])
    if len(generations) != len(block):
        raise EngineError(
            f"engine {engine.identity.get('engine')} gave {len(generations)} answers to "
            f"{len(block)} prompts"
        )
    return [_rewrite(s, g) for s, g in zip(block, generations, strict=True)]


def _rewrite(sample: _Sample, generation: Generation) -> Rewrite:
    # Half of a surrogate pair is legal in JSON and illegal in UTF-8 files.
    response = generation.text.encode("utf-8", "replace").decode("utf-8")
    parsed = None if generation.error else parse_rewrite(response)
    status = "failed" if generation.error else "ok" if parsed else "malformed"
    return Rewrite(
        qid=sample.qid,
        candidate=sample.candidate,
        status=status,
        text=parsed.rewrite if parsed else None,
        response=response,
        seed=sample.seed,
        num_tokens=generation.num_tokens,
        error=generation.error,
    )


def _has_failed(rewrite: Rewrite | None) -> bool:
    return rewrite is not None and rewrite.status == "failed"
