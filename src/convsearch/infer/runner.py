"""From turns to rewrites: one record for every turn and candidate, resumable at any moment.

Work is cut into fixed blocks of the input, and a block is made whole or not at all. So a sample has
the same neighbours in its batch, and the same rounding, in a run that was killed and taken up again
as in an unbroken one: both write the same bytes. Blocks get done in any order and go to the journal
as they come; the output is written at the end, in the order of the input.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from convsearch.errors import ConfigError, DataError, EngineError
from convsearch.files import atomic_write, parse_rewrite_record, read_jsonl, read_rewrites
from convsearch.infer.engine import Block, BlockEngine, Engine, Generation, SamplingParams
from convsearch.infer.failures import Failures, refuse_unanswered
from convsearch.infer.first_answers import Answer, FirstAnswers
from convsearch.infer.journal import (
    Journal,
    Settings,
    disk_errors,
    is_finished,
    journal_path,
    passport_path,
)
from convsearch.infer.plan import Plan
from convsearch.passport import write_passport
from convsearch.prompts import PromptStyle, parse_response, with_thought
from convsearch.prompts.asking import Asking
from convsearch.texts import mended
from convsearch.types import Rewrite, Turn

Progress = Callable[[int, int], None]
"""(samples done, samples in all)."""
STAGE = "infer"
STATUSES = ("ok", "malformed", "failed")
COPIED_RECORDS = 1024
"""Records that are copied at a time."""


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
    told: Asking | None = None,
    on_progress: Progress | None = None,
) -> list[Rewrite]:
    """As `infer_to_file`, and returns the records."""
    plan = Plan(
        turns=turns,
        style=style,
        params=params,
        seed=seed,
        shots=shots,
        candidates=candidates,
        told=told,
    )
    infer_to_file(
        plan,
        engine,
        out_path=out_path,
        batch_size=batch_size,
        fresh=fresh,
        retry_failed=retry_failed,
        inputs=inputs,
        on_progress=on_progress,
    )
    return read_rewrites(out_path)


def infer_to_file(
    plan: Plan,
    engine: Engine,
    *,
    out_path: Path,
    batch_size: int = 64,
    fresh: bool = False,
    retry_failed: bool = False,
    inputs: Sequence[Path] = (),
    on_progress: Progress | None = None,
    on_tokens: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Writes `rewrites.jsonl`: one record for each sample of the plan, in its order. Returns how
    many there are, and how many of each status.

    A run that was interrupted goes on where it stopped; a finished one is left as it is.
    fresh: start over instead. retry_failed: ask again where an earlier run got no response;
    malformed responses stay what they are. inputs: files that the turns came from, for the
    passport. on_tokens hears how many tokens each finished block has. In memory are the turns, the
    blocks being worked on, and where each record stands in the journal.
    Raises ConfigError where the output was made with other settings or another run writes it,
    WriteError where the disk refuses, EngineError where this call got no answer at all, and
    whatever the engine raises; finished blocks are kept.
    """
    started = time.monotonic()
    if out_path.is_dir():
        raise ConfigError(f"{out_path}: is a folder; name a file to write, such as rewrites.jsonl")
    settings = _settings(plan, engine, batch_size)
    done = _finished(out_path, settings, plan, fresh=fresh, kept=not retry_failed)
    if done is not None and not retry_failed:
        refuse_unanswered(out_path, done["failed"], done["rewrites"])
        return done
    with disk_errors(out_path):
        out_path.parent.mkdir(parents=True, exist_ok=True)
    journal, size = Journal(journal_path(out_path), settings, fresh=fresh), 0
    try:
        if done is not None:
            _copy(out_path, journal)
        size = journal.path.stat().st_size
        _work(
            plan,
            engine,
            journal,
            _todo(plan, journal, batch_size, retry_failed=retry_failed),
            on_progress,
            on_tokens,
        )
        with disk_errors(out_path), atomic_write(out_path) as out:
            out.writelines(journal.line(key) for key in plan.sample_keys())
        counts = _counts(journal.places[key].status for key in plan.sample_keys())
        with disk_errors(passport_path(out_path)):
            write_passport(
                passport_path(out_path),
                stage=STAGE,
                settings=settings,
                inputs=inputs,
                counts=counts,
                seed=plan.seed,
                seconds=round(time.monotonic() - started, 3),
            )
        journal.path.unlink()
    except EngineError:
        if (done or not journal.places) and journal.path.stat().st_size == size:
            journal.path.unlink()  # nothing is in it that is not in the output
        raise
    finally:
        journal.close()
    return counts


def count_statuses(rewrites: Sequence[Rewrite]) -> dict[str, int]:
    """How many records there are, and of each status."""
    return _counts(r.status for r in rewrites)


def _counts(statuses: Iterable[str]) -> dict[str, int]:
    found = Counter(statuses)
    return {"rewrites": found.total(), **{name: found[name] for name in STATUSES}}


def _settings(plan: Plan, engine: Engine, batch_size: int) -> Settings:
    """All that decides the output's bytes, as JSON returns it."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more, got {batch_size}")
    settings = {
        "engine": dict(engine.identity),
        "style": plan.style,
        "shots": plan.shots,
        "sampling": asdict(plan.params),
        "seed": plan.seed,
        "candidates": plan.candidates,
        "batch_size": batch_size,
        "samples": len(plan),
        "prompts_sha256": plan.prompts_sha256(),
    }
    if plan.template is not None:
        settings["prompt_file"] = plan.template.text
    return json.loads(json.dumps(settings))


def _finished(
    out_path: Path, settings: Settings, plan: Plan, *, fresh: bool, kept: bool
) -> dict[str, int] | None:
    """The counts of a finished run with these settings; None where there is none yet."""
    if not is_finished(out_path, settings, command=STAGE, fresh=fresh, kept=kept):
        return None
    expected = plan.sample_keys()
    statuses = []
    for rewrite in _records(out_path):
        statuses.append(rewrite.status)
        if (rewrite.qid, rewrite.candidate) != next(expected, None):
            break
    else:
        if next(expected, None) is None:
            return _counts(statuses)
    raise DataError(
        f"{out_path}: its records are not those that {passport_path(out_path).name} tells of; "
        "start over with --fresh"
    )


def _records(path: Path) -> Iterator[Rewrite]:
    return (parse_rewrite_record(record, where) for where, record in read_jsonl(path))


def _copy(out_path: Path, journal: Journal) -> None:
    """Takes the records of a finished output into the journal."""
    records = _records(out_path)
    try:
        while some := list(islice(records, COPIED_RECORDS)):
            journal.append(some)
    except BaseException:
        journal.path.unlink()  # the output has them all; half a journal would take its place
        raise


def _todo(
    plan: Plan, journal: Journal, batch_size: int, *, retry_failed: bool
) -> list[Sequence[int]]:
    """The blocks that are not whole, as numbers of samples; then failed ones to ask again."""
    blocks = [range(i, min(i + batch_size, len(plan))) for i in range(0, len(plan), batch_size)]
    todo: list[Sequence[int]] = [
        block for block in blocks if any(plan.key(n) not in journal.places for n in block)
    ]
    if retry_failed:
        places = map(journal.places.get, plan.sample_keys())
        failed = [n for n, place in enumerate(places) if place and place.status == "failed"]
        todo += [failed[i : i + batch_size] for i in range(0, len(failed), batch_size)]
    return todo


def _work(
    plan: Plan,
    engine: Engine,
    journal: Journal,
    todo: Sequence[Sequence[int]],
    on_progress: Progress | None,
    on_tokens: Callable[[int], None] | None,
) -> None:
    """Has every block made and puts it into the journal."""
    left = sum(map(len, todo))
    failures: Failures[list[Rewrite]] = Failures()
    first = FirstAnswers(
        plan.style, max_tokens=plan.params.max_tokens, shots=plan.shots, told=plan.told
    )
    if on_progress:
        on_progress(len(plan) - left, len(plan))
    for i, generations in _answers(engine, map(plan.block, todo), plan.params):
        numbers = todo[i]
        if len(generations) != len(numbers):
            raise EngineError(
                f"engine {engine.identity.get('engine')} gave {len(generations)} answers to "
                f"{len(numbers)} prompts"
            )
        made = [read_generation(plan, n, g) for n, g in zip(numbers, generations, strict=True)]
        for block in failures.passed(made, [rewrite.error for rewrite in made]):
            journal.append(block)
        for rewrite, generation in zip(made, generations, strict=True):
            if rewrite.status != "failed":
                is_ok, is_cut = rewrite.status == "ok", generation.is_cut
                first.add(Answer(text=rewrite.response, is_ok=is_ok, is_cut=is_cut))
        left -= len(numbers)
        if on_tokens:
            on_tokens(sum(g.num_tokens for g in generations))
        if on_progress:
            on_progress(len(plan) - left, len(plan))
    first.end()
    failures.end()


def _answers(
    engine: Engine, blocks: Iterable[Block], params: SamplingParams
) -> Iterator[tuple[int, list[Generation]]]:
    """(position of the block, its generations), as they get done."""
    if isinstance(engine, BlockEngine):
        yield from engine.generate_blocks(blocks, params)
        return
    for i, block in enumerate(blocks):
        yield i, engine.generate(block.chats, params, block.seeds)


def read_generation(plan: Plan, number: int, generation: Generation) -> Rewrite:
    """What a generation is for a sample of the plan."""
    response = with_thought(plan.style, mended(generation.thought), mended(generation.text))
    parsed = None if generation.error else parse_response(plan.style, response)
    qid, candidate = plan.key(number)
    return Rewrite(
        qid=qid,
        candidate=candidate,
        status="failed" if generation.error else "ok" if parsed else "malformed",
        text=parsed.rewrite if parsed else None,
        response=response,
        seed=plan.seed_of(number),
        num_tokens=generation.num_tokens,
        error=generation.error,
    )
