"""Most of the first answers malformed: said at once, once, with the likely reason."""

import pytest

from convsearch.infer import SamplingParams
from convsearch.infer.echo_engine import EchoEngine
from convsearch.infer.engine import Generation
from convsearch.infer.first_answers import FIRST, Answer, FirstAnswers
from convsearch.infer.runner import infer_rewrites
from convsearch.prompts import PromptStyle
from convsearch.prompts.asking import Asking, asking_of
from convsearch.types import Turn

BROKEN = "<think> fried hall y</rewrite>"


def warning_of(
    text: str,
    style: PromptStyle,
    caplog: pytest.LogCaptureFixture,
    *,
    shots: int = 0,
    told: Asking | None = None,
    is_cut: bool = False,
    good: int = 0,
    count: int = FIRST,
) -> str:
    first = FirstAnswers(style, max_tokens=96, shots=shots, told=told)
    for i in range(count):
        is_ok = i < good
        first.add(Answer(text="ok" if is_ok else text, is_ok=is_ok, is_cut=is_cut and not is_ok))
    return caplog.text


@pytest.mark.parametrize(
    ("text", "style", "more", "said"),
    [
        (BROKEN, "instruct", {"told": asking_of("nano")}, "was trained with prompt style nano and"),
        (BROKEN, "instruct", {}, "the tags are there and broken"),
        ("thinking and", "nano", {"is_cut": True}, "20 of them were cut at --max-tokens 96"),
        ("  ", "nano", {}, "they are empty"),
        ("<think>a</think>\n<rewrite>b</rewrite>", "plain", {}, "style instruct or nano"),
        ("because\nQuery: b", "instruct", {}, "the form of prompt style cot"),
        ("hm</think> b", "instruct", {}, "the form of prompt style reasoning"),
        ("<think>a</think>\n<rewrite>b</rewrite>" * 3, "nano", {}, "begin another"),
        ("Kallsund ferry cost", "instruct", {}, "with an example (--shots 1), or with --prompt"),
        ("Kallsund ferry cost", "instruct", {"shots": 1}, "asked otherwise, or with --prompt pl"),
        ("Kallsund ferry cost", "reasoning", {}, "keeps it to itself"),
        ("Kallsund ferry cost", "nano", {}, "not in the form that prompt style nano"),
    ],
)
def test_the_likely_reason_is_named(text: str, style: PromptStyle, more: dict, said: str, caplog):
    found = warning_of(text, style, caplog, **more)
    assert "20 of the first 20 answers are malformed. Likely reason: " in found
    assert said in found


def test_half_is_not_most_and_nobody_is_told_twice(caplog):
    assert warning_of(BROKEN, "nano", caplog, good=10) == ""
    assert warning_of(BROKEN, "nano", caplog, good=9, count=60).count("11 of the first 20") == 1
    assert len(caplog.records) == 1


def test_a_short_run_is_judged_at_its_end(caplog):
    first = FirstAnswers("nano", max_tokens=96)
    first.end()
    assert caplog.text == ""
    first = FirstAnswers("nano", max_tokens=96)
    for _ in range(3):
        first.add(Answer(text=BROKEN, is_ok=False, is_cut=False))
    assert caplog.text == ""
    first.end()
    first.end()
    assert len(caplog.records) == 1
    assert "3 of the first 3" in caplog.text


class Broken(EchoEngine):
    """Answers in half a form; asked about "silent", not at all."""

    def generate(self, chats, params, seeds):
        return [
            Generation(error="no answer")
            if "silent" in chat[-1]["content"]
            else Generation(text=BROKEN)
            for chat in chats
        ]


def test_a_run_says_it_after_the_block_that_shows_it(tmp_path, caplog):
    turns = [
        Turn(
            qid=f"q{i}", conv_id="c", turn=1, split="test", question="silent?" if i < 8 else "why?"
        )
        for i in range(40)
    ]
    when: list[tuple[int, int]] = []
    rewrites = infer_rewrites(
        turns,
        Broken(),
        out_path=tmp_path / "o.jsonl",
        style="instruct",
        params=SamplingParams(max_tokens=64),
        seed=0,
        batch_size=4,
        told=asking_of("nano"),
        on_progress=lambda done, _: when.append((done, len(caplog.records))),
    )
    assert {r.status for r in rewrites} == {"failed", "malformed"}
    assert next(done for done, warnings in when if warnings) == 28  # 8 failed, 20 seen
    assert [r.name.rpartition(".")[2] for r in caplog.records] == ["first_answers", "failures"]
    assert caplog.records[-1].getMessage().startswith("8 of 40 requests got no answer")
    assert "is asked in instruct" in caplog.text
