"""From questions to episodes: one for every question, in the order of the input, resumable.

Questions go through in fixed blocks, made whole or not at all. All agents of a block speak in one
batch and search in one batch, turn by turn. A broken engine or search engine stops the run with
its finished blocks kept; one prompt that cannot be answered is a failed episode and is counted.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from convsearch.agent import AgentState, Strategy, observe, start, to_episode
from convsearch.agent.formats import ToolFormat
from convsearch.agent.records import read_episodes, write_episodes
from convsearch.agent.search import Call, SearchTool
from convsearch.agent.squeeze import SqueezeMeter
from convsearch.agent.strategies import check_together, opening_messages
from convsearch.episodes.dialogue import Dialogue, check_engine, speak, token_counter
from convsearch.episodes.journal import EpisodeJournal
from convsearch.episodes.latency import read_seconds, write_seconds
from convsearch.errors import ConfigError, DataError, EngineError
from convsearch.infer.engine import Engine, SamplingParams
from convsearch.infer.failures import Failures, refuse_unanswered
from convsearch.infer.journal import Settings, is_finished, journal_path, passport_path
from convsearch.passport import write_passport
from convsearch.retrieval.identity import index_identity
from convsearch.types import Episode, Question

STAGE = "agent infer"
Progress = Callable[[int, int], None]
"""(episodes done, episodes in all)."""
Watch = Callable[[AgentState], None]
"""Hears of every state that an agent reaches."""


@dataclass(frozen=True, kw_only=True)
class AgentRun:
    """What decides the episodes besides questions, engine and search engine."""

    strategy: Strategy
    form: ToolFormat
    params: SamplingParams
    """max_tokens is for one turn."""
    seed: int = 0
    batch_size: int = 64
    """Questions of one block: what a kill can cost; a resumed run must keep it."""
    labels: dict[str, str] = field(default_factory=dict)
    """What else belongs in the passport and shapes nothing, such as the address of the index."""

    def __post_init__(self) -> None:
        check_together(self.strategy, self.form)
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, got {self.batch_size}")


class _Played(NamedTuple):
    """A block that is over: its episodes, and the seconds of it and of each."""

    episodes: list[Episode]
    seconds: float
    seconds_of: dict[str, float]


def infer_episodes(
    questions: Sequence[Question],
    engine: Engine,
    tool: SearchTool,
    run: AgentRun,
    *,
    out_path: Path,
    fresh: bool = False,
    retry_failed: bool = False,
    inputs: Sequence[Path] = (),
    on_progress: Progress | None = None,
) -> list[Episode]:
    """Writes `episodes.jsonl`, one episode for each question in their order, and beside it how long
    each took.

    A run that was interrupted goes on where it stopped; a finished one is returned as it is.
    fresh: start over instead. retry_failed: ask again where the engine gave no answer. Raises
    ConfigError where the output was made with other settings, EngineError where this call got no
    answer at all, and what engine, search engine and squeezer raise; finished blocks are kept.
    """
    check_engine(engine, run.form)
    _check_questions(questions)
    settings = _settings(questions, engine, tool, run)
    journal_at = journal_path(out_path)
    done = _finished(out_path, settings, questions, run, fresh=fresh, kept=not retry_failed)
    if fresh:
        journal_at.unlink(missing_ok=True)
    num_failed = sum(episode.status == "failed" for episode in done)
    if done and not (retry_failed and num_failed):
        refuse_unanswered(out_path, num_failed, len(done))
        return done
    out_path.parent.mkdir(parents=True, exist_ok=True)
    journal, size = EpisodeJournal(journal_at, settings, labels=run.labels), 0
    failures: Failures[_Played] = Failures(what="questions")
    try:
        if done:
            journal.append(done, 0.0, read_seconds(out_path))
        size = journal_at.stat().st_size
        for block in _blocks(questions, journal, run.batch_size, retry_failed):
            if on_progress:
                on_progress(len(journal.episodes), len(questions))
            began = time.monotonic()
            played = play_block(block, engine, tool, run)
            made = [_episode(dialogue, run) for dialogue in played]
            took = {d.state.qid: round(d.seconds, 3) for d in played}
            now = _Played(made, time.monotonic() - began, took)
            for kept in failures.passed(now, [_error(episode) for episode in made]):
                journal.append(*kept)
        failures.end()
        _check_squeezing(list(journal.episodes.values()))
    except EngineError:
        if (done or not journal.episodes) and journal_at.stat().st_size == size:
            journal_at.unlink()  # nothing is in it that is not in the output
        raise
    finally:
        journal.close()
    if on_progress:
        on_progress(len(questions), len(questions))
    episodes = [journal.episodes[question.qid] for question in questions]
    write_episodes(out_path, episodes)
    write_seconds(out_path, [e.qid for e in episodes], journal.seconds_of)
    write_passport(
        passport_path(out_path),
        stage=STAGE,
        settings={**settings, **run.labels},
        inputs=inputs,
        counts=count_episodes(episodes),
        seed=run.seed,
        seconds=round(journal.seconds, 3),
    )
    journal_at.unlink()
    return episodes


def run_block(
    questions: Sequence[Question],
    engine: Engine,
    tool: SearchTool,
    run: AgentRun,
    *,
    watch: Watch | None = None,
) -> list[Episode]:
    """The episodes of some questions, in their order. watch: hears of every step."""
    dialogues = play_block(questions, engine, tool, run, watch=watch)
    return [_episode(dialogue, run) for dialogue in dialogues]


def play_block(
    questions: Sequence[Question],
    engine: Engine,
    tool: SearchTool,
    run: AgentRun,
    *,
    watch: Watch | None = None,
) -> list[Dialogue]:
    """As `run_block`, with the tokens of each dialogue and the seconds it took."""
    began = time.monotonic()
    count = token_counter(engine)
    dialogues = [
        Dialogue(
            state=start(q.qid, q.question, run.strategy, run.form, count_tokens=count),
            seed=run.seed,
        )
        for q in questions
    ]

    def tell(changed: Sequence[Dialogue]) -> None:
        for dialogue in changed:
            if dialogue.is_over:
                dialogue.seconds = time.monotonic() - began
            if watch:
                watch(dialogue.state)

    while True:
        searching = [d for d in dialogues if d.state.wants == "results"]
        if searching:
            calls = [Call(question=d.state.question, queries=d.state.pending) for d in searching]
            for dialogue, evidence in zip(searching, tool.answer(calls), strict=True):
                dialogue.state = observe(dialogue.state, evidence)
            tell(searching)
        speaking = [d for d in dialogues if d.state.wants == "text"]
        if not speaking:
            return dialogues
        speak(engine, speaking, run.params)
        tell(speaking)


def count_episodes(episodes: Sequence[Episode]) -> dict[str, int]:
    """How many there are, by status and by what ended them, what they cost and what was mended."""
    counts = Counter({"episodes": len(episodes), "answered": 0, "no_answer": 0, "failed": 0})
    counts.update(episode.status for episode in episodes)
    counts.update(f"ended_by_{episode.ended_by}" for episode in episodes)
    for episode in episodes:
        counts["searches"] += sum(bool(span.queries) for span in episode.spans)
        counts["queries"] += len(episode.queries)
        counts["documents"] += len(episode.doc_ids)
        counts["model_tokens"] += episode.num_model_tokens
        counts["tool_tokens"] += episode.num_tool_tokens
        counts.update(episode.counts)
    return dict(counts)


def _error(episode: Episode) -> str | None:
    return (episode.error or "no reason given") if episode.status == "failed" else None


def _episode(dialogue: Dialogue, run: AgentRun) -> Episode:
    return to_episode(
        dialogue.state,
        seed=run.seed,
        prefix_violations=dialogue.track.violations + dialogue.rendered.violations,
        prefix_unknown=dialogue.rendered.unknown,
    )


def _check_squeezing(episodes: Sequence[Episode]) -> None:
    """Raises EngineError where more than 10 % of all calls, those of earlier attempts among them,
    were not squeezed."""
    asked = [s.squeezed for e in episodes for s in e.spans if s.squeezed is not None]
    meter = SqueezeMeter()
    meter.add(len(asked), asked.count(False))
    meter.finish()


def _blocks(
    questions: Sequence[Question], journal: EpisodeJournal, size: int, retry_failed: bool
) -> list[list[Question]]:
    """Blocks of the input of which something is missing, and then those that are asked again.

    Missing is also what an earlier attempt made without its squeezer.
    """
    known = journal.episodes
    blocks = [list(questions[i : i + size]) for i in range(0, len(questions), size)]
    todo = [
        block
        for block in blocks
        if any(q.qid not in known or known[q.qid].counts.get("squeezer_failed") for q in block)
    ]
    if retry_failed:
        failed = [q for q in questions if q.qid in known and known[q.qid].status == "failed"]
        todo += [failed[i : i + size] for i in range(0, len(failed), size)]
    return todo


def _check_questions(questions: Sequence[Question]) -> None:
    if not questions:
        raise DataError("there are no questions; check the file and the split")
    twice = [qid for qid, number in Counter(q.qid for q in questions).items() if number > 1]
    if twice:
        raise DataError(f"qid {twice[0]!r} occurs twice among the questions; ids must be unique")


def _settings(
    questions: Sequence[Question], engine: Engine, tool: SearchTool, run: AgentRun
) -> Settings:
    """All that decides the output's bytes, as JSON returns it."""
    prompts = hashlib.sha256()
    for question in questions:
        opening = opening_messages(run.strategy, run.form, question.question)
        prompts.update(json.dumps([question.qid, opening]).encode())
    settings = {
        "engine": dict(engine.identity),
        "strategy": run.strategy.name,
        "budget": asdict(run.strategy.budget),
        "format": run.form.name,
        "sampling": asdict(run.params),
        "search": asdict(tool.settings),
        "squeezer": tool.squeezer_name,
        "seed": run.seed,
        "batch_size": run.batch_size,
        "questions": len(questions),
        "prompts_sha256": prompts.hexdigest(),
        "index": index_identity(tool.retriever, run.labels.get("retriever", "none")),
    }
    return json.loads(json.dumps(settings))


def _finished(
    out_path: Path,
    settings: Settings,
    questions: Sequence[Question],
    run: AgentRun,
    *,
    fresh: bool,
    kept: bool,
) -> list[Episode]:
    """The episodes of a finished run with these settings; empty where there is none yet."""
    finished = is_finished(
        out_path, settings, command=STAGE, fresh=fresh, kept=kept, labels=run.labels
    )
    if not finished:
        return []
    episodes = read_episodes(out_path)
    if [episode.qid for episode in episodes] != [question.qid for question in questions]:
        raise DataError(
            f"{out_path}: its episodes are not those that {passport_path(out_path).name} tells of; "
            "start over with --fresh"
        )
    return episodes
