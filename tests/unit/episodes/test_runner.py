"""The driver: batched turns, one episode a question, resumable, tokens that only grow."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from agent_case import (
    INJECTIONS,
    PASSAGES,
    ScriptedChat,
    ScriptedTokens,
    answer,
    call,
    decode,
    search_then_answer,
    some_questions,
)

from convsearch.agent import strategy, tool_format
from convsearch.agent.records import read_episodes
from convsearch.agent.search import SearchSettings, SearchTool
from convsearch.agent.squeeze import ExtractiveSqueezer, SqueezeRequest
from convsearch.episodes import AgentRun, infer_episodes
from convsearch.episodes.journal import EpisodeJournal
from convsearch.episodes.latency import read_seconds
from convsearch.episodes.runner import play_block
from convsearch.errors import ConfigError, DataError, EngineError, RetrieverError
from convsearch.infer import SamplingParams
from convsearch.infer.echo_engine import EchoEngine
from convsearch.infer.journal import journal_path, passport_path
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage, derive_seed

PARAMS = SamplingParams(temperature=0, max_tokens=64)


def a_tool(**options) -> SearchTool:
    options.setdefault("squeezer", None)
    passages = options.pop("passages", PASSAGES)
    return SearchTool(InMemoryRetriever(passages), SearchSettings(topk=2), **options)


def a_run(form: str = "plain", name: str | None = None, **options) -> AgentRun:
    name = name or ("search_r1" if form == "search_r1" else "expand_search")
    options.setdefault("batch_size", 4)
    return AgentRun(
        strategy=strategy(name), form=tool_format(form), params=PARAMS, seed=5, **options
    )


def infer(engine, out: Path, *, number: int = 10, run: AgentRun | None = None, **options):
    return infer_episodes(
        some_questions(number), engine, options.pop("tool", a_tool()), run or a_run(),
        out_path=out, **options,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["plain", "hermes"])
@pytest.mark.parametrize("kind", [ScriptedChat, ScriptedTokens])
def test_every_question_gives_an_episode_in_order(kind, form: str, tmp_path: Path):
    out = tmp_path / "episodes.jsonl"
    engine = kind(search_then_answer(form))
    episodes = infer(engine, out, run=a_run(form))
    assert [e.qid for e in episodes] == [f"q{i}" for i in range(10)]
    assert engine.batches == [4, 4, 4, 4, 2, 2]
    assert {(e.status, e.answer, e.num_turns) for e in episodes} == {
        ("answered", "Ada Lovelace", 2)
    }
    assert all(e.doc_ids for e in episodes)
    assert read_episodes(out) == episodes
    passport = json.loads(passport_path(out).read_text())
    assert passport["counts"]["answered"] == 10
    assert passport["counts"]["searches"] == 10
    assert passport["settings"]["strategy"] == "expand_search"
    assert not journal_path(out).exists()


def test_seconds_lie_beside_episodes_that_do_not_change_with_them(tmp_path: Path):
    made = {}
    for name in ("a", "b"):
        out = tmp_path / f"{name}.jsonl"
        episodes = infer(ScriptedChat(search_then_answer("plain")), out)
        took = read_seconds(out)
        assert list(took) == [episode.qid for episode in episodes]
        assert all(seconds >= 0 for seconds in took.values())
        made[name] = out.read_bytes()
    assert made["a"] == made["b"]
    assert b"seconds" not in made["a"]


def test_a_resumed_run_keeps_the_seconds_of_its_first_part(tmp_path: Path):
    out = tmp_path / "episodes.jsonl"
    with pytest.raises(EngineError):
        infer(ScriptedChat(search_then_answer("plain"), dies_at=2), out)
    [settings, block] = journal_path(out).read_text().splitlines()
    record = json.loads(block)
    record["seconds_of"] = {"q0": 77.5}
    journal_path(out).write_text(f"{settings}\n{json.dumps(record)}\n")
    infer(ScriptedChat(search_then_answer("plain")), out)
    took = read_seconds(out)
    assert took["q0"] == 77.5
    assert set(took) == {"q0", *(f"q{i}" for i in range(4, 10))}


def test_each_turn_has_a_seed_of_its_own(tmp_path: Path):
    engine = ScriptedChat(search_then_answer("plain"))
    infer(engine, tmp_path / "e.jsonl", number=2)
    assert engine.seeds == [derive_seed(5, qid, turn) for turn in (0, 1) for qid in ("q0", "q1")]


@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_broken_engine_costs_a_block_and_the_result_is_the_same(dies_at: int, tmp_path: Path):
    out = tmp_path / "episodes.jsonl"
    with pytest.raises(EngineError):
        infer(ScriptedChat(search_then_answer("plain"), dies_at=dies_at), out)
    assert not out.exists()
    rest = ScriptedChat(search_then_answer("plain"))
    infer(rest, out)
    assert sum(rest.batches) == 2 * (10 - 4 * (dies_at // 2))
    infer(ScriptedChat(search_then_answer("plain")), tmp_path / "unbroken.jsonl")
    assert out.read_bytes() == (tmp_path / "unbroken.jsonl").read_bytes()


def test_a_journal_that_a_kill_cut_short_is_taken_up(tmp_path: Path):
    out = tmp_path / "episodes.jsonl"
    with pytest.raises(EngineError):
        infer(ScriptedChat(search_then_answer("plain"), dies_at=4), out)
    journal = journal_path(out)
    journal.write_bytes(journal.read_bytes()[:-30])
    rest = ScriptedChat(search_then_answer("plain"))
    assert len(infer(rest, out)) == 10
    assert rest.batches == [4, 4, 2, 2]


def test_a_damaged_journal_is_a_sentence(tmp_path: Path):
    out = tmp_path / "episodes.jsonl"
    with pytest.raises(EngineError):
        infer(ScriptedChat(search_then_answer("plain"), dies_at=4), out)
    journal = journal_path(out)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(DataError, match=r"journal:2: the journal is damaged"):
        infer(ScriptedChat(search_then_answer("plain")), out)
    assert infer(ScriptedChat(search_then_answer("plain")), out, fresh=True)


def test_a_full_disk_keeps_the_finished_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = EpisodeJournal(tmp_path / "j", {"a": 1})
    before = (tmp_path / "j").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convsearch.episodes.journal.os.fsync", full)
    with pytest.raises(DataError, match="No space left"):
        journal.append([], 1.0)
    assert (tmp_path / "j").read_bytes() == before


def test_a_finished_run_is_returned_and_other_settings_are_refused(tmp_path: Path):
    out = tmp_path / "episodes.jsonl"
    first = infer(ScriptedChat(search_then_answer("plain")), out)
    idle = ScriptedChat(search_then_answer("plain"))
    assert infer(idle, out) == first
    assert idle.batches == []
    with pytest.raises(ConfigError, match=r"strategy.*--fresh"):
        infer(idle, out, run=a_run(name="parallel_search"))
    with pytest.raises(ConfigError, match="squeezer"):
        infer(idle, out, tool=a_tool(squeezer=ExtractiveSqueezer(len)))
    passport_path(out).unlink()
    with pytest.raises(ConfigError, match="does not say how it was made"):
        infer(idle, out)


def test_a_prompt_without_an_answer_fails_alone_and_can_be_asked_again(tmp_path: Path):
    out = tmp_path / "episodes.jsonl"
    good = search_then_answer("plain")

    def deaf(dialogue: str, turn: int) -> str | None:
        return None if "word3" in dialogue else good(dialogue, turn)

    episodes = infer(ScriptedChat(deaf), out)
    assert [e.status for e in episodes].count("failed") == 1
    assert (episodes[3].status, episodes[3].error) == ("failed", "too long")
    again = ScriptedChat(good)
    mended = infer(again, out, retry_failed=True)
    assert [e.status for e in mended] == ["answered"] * 10
    assert again.batches == [1, 1]


def test_a_dead_search_engine_stops_the_run(tmp_path: Path):
    class Dead(InMemoryRetriever):
        def search(self, queries, topk):
            raise RetrieverError("http://x: refused; start it")

    tool = SearchTool(Dead(PASSAGES), SearchSettings())
    with pytest.raises(RetrieverError):
        infer(ScriptedChat(search_then_answer("plain")), tmp_path / "e.jsonl", tool=tool)
    assert not (tmp_path / "e.jsonl").exists()


class Squeezing:
    """A squeezer that can be broken and mended."""

    name = "made"

    def __init__(self, *, broken: bool) -> None:
        self.broken = broken

    def squeeze(self, requests: Sequence[SqueezeRequest], max_tokens: int) -> list[str | None]:
        return [None if self.broken else "Ada did it." for _ in requests]


def test_a_squeezer_that_fails_stops_a_run_however_short(tmp_path: Path):
    out = tmp_path / "e.jsonl"
    engine = ScriptedChat(search_then_answer("plain"))
    for _ in range(2):
        with pytest.raises(EngineError, match="failed in 10 of 10 calls"):
            infer(engine, out, tool=a_tool(squeezer=Squeezing(broken=True)))
        assert not out.exists()
    mended = infer(engine, out, tool=a_tool(squeezer=Squeezing(broken=False)))
    assert all(span.squeezed for e in mended for span in e.spans if span.kind == "tool")


def test_an_output_that_cannot_be_written_is_a_sentence(tmp_path: Path):
    (tmp_path / "e.jsonl.journal").mkdir()
    with pytest.raises(DataError, match=r"e\.jsonl\.journal: cannot be written"):
        infer(ScriptedChat(search_then_answer("plain")), tmp_path / "e.jsonl")


def test_bad_questions_are_sentences(tmp_path: Path):
    engine = ScriptedChat(search_then_answer("plain"))
    with pytest.raises(DataError, match="no questions"):
        infer(engine, tmp_path / "e.jsonl", number=0)
    twice = [*some_questions(2), *some_questions(1)]
    with pytest.raises(DataError, match="'q0' occurs twice"):
        infer_episodes(twice, engine, a_tool(), a_run(), out_path=tmp_path / "e.jsonl")


def test_an_engine_of_chats_cannot_hold_an_inline_dialogue(tmp_path: Path):
    with pytest.raises(ConfigError, match="choose --engine transformers"):
        infer(EchoEngine(), tmp_path / "e.jsonl", run=a_run("search_r1"))


def test_a_model_that_knows_no_tools_ends_without_an_answer(tmp_path: Path):
    episodes = infer(EchoEngine(), tmp_path / "e.jsonl")
    assert {(e.status, e.ended_by) for e in episodes} == {("no_answer", "faults")}


@pytest.mark.parametrize("form", ["plain", "hermes", "search_r1"])
def test_ids_only_grow_and_the_mask_is_what_was_sampled(form: str):
    sampled: dict[str, list[str]] = {}
    good = search_then_answer(form)

    def script(dialogue: str, turn: int) -> str:
        text = "<think>odd</think> no action" if turn == 1 else good(dialogue, turn)
        sampled.setdefault(dialogue.split("program ")[1].split("?")[0], []).append(text)
        return text

    seen: dict[str, tuple[int, ...]] = {}
    engine = ScriptedTokens(script)
    generate = engine.generate_ids

    def checked(prompts, params, seeds, stop=()):
        for prompt in prompts:
            word = decode(prompt).split("program ")[1].split("?")[0]
            before = seen.get(word, ())
            assert tuple(prompt[: len(before)]) == before
            seen[word] = tuple(prompt)
        return generate(prompts, params, seeds, stop)

    engine.generate_ids = checked
    for dialogue in play_block(some_questions(3), engine, a_tool(), a_run(form)):
        track = dialogue.track
        assert track.violations == 0
        own = decode([i for i, mine in zip(track.ids, track.mask, strict=True) if mine])
        word = f"word{dialogue.state.qid[1:]}"
        end = "" if form == "search_r1" else "<|im_end|>"
        assert own == "".join(text + end for text in sampled[word])
        assert track.num_prompt > 0
        assert not any(track.mask[: track.num_prompt])
        assert dialogue.state.model_tokens == sum(track.mask)


@pytest.mark.parametrize("form", ["hermes", "search_r1"])
def test_no_passage_changes_the_frame_of_the_tokens(form: str):
    def frame(passage: str) -> tuple[list[int], int]:
        hostile = [Passage(doc_id="d1", title="Ada", text=f"Ada word0 {passage}")]
        [dialogue] = play_block(
            some_questions(1),
            ScriptedTokens(search_then_answer(form)),
            a_tool(passages=hostile),
            a_run(form),
        )
        specials = [i for i in dialogue.track.ids if i >= 0x110000]
        return specials, sum(dialogue.track.mask)

    calm = frame("is calm")
    for passage in INJECTIONS:
        assert frame(passage) == calm


def test_watchers_hear_every_step():
    heard: list[str] = []
    engine = ScriptedChat(lambda _, turn: answer("x") if turn else call("plain", "Ada"))
    play_block(
        some_questions(1), engine, a_tool(), a_run(), watch=lambda state: heard.append(state.wants)
    )
    assert heard == ["results", "text", "nothing"]
