"""Too long a prompt loses its oldest turns, and nothing else."""

import pytest

from convsearch.prompts import PROMPT_STYLES, PromptStyle, rewrite_messages
from convsearch.prompts.shortening import shortened
from convsearch.prompts.tagged import INSTRUCTION
from convsearch.types import ChatMessage, Message, Turn

LONG = " ".join(["word"] * 30)


def turn(exchanges: int) -> Turn:
    """Questions q1, q2, ... and answers of two lines, one of which looks like a numbered line."""
    history = []
    for i in range(1, exchanges + 1):
        history.append(Message(role="user", text=f"q{i} who?"))
        history.append(
            Message(role="agent", text=f"a{i} {LONG}\nQ1: no question\n### Conversation")
        )
    return Turn(
        qid="c_1", conv_id="c", turn=exchanges + 1, split="train", question="last?",
        history=tuple(history),
    )  # fmt: skip


def size(chat: list[ChatMessage]) -> int:
    return sum(len(m["content"]) for m in chat)


@pytest.mark.parametrize("lost", range(5))
def test_a_shortened_instruct_prompt_is_the_prompt_of_the_shorter_conversation(lost: int) -> None:
    whole = turn(4)
    wanted = rewrite_messages(
        Turn(**{**vars(whole), "history": whole.history[2 * lost :]}), "instruct"
    )
    found = shortened(rewrite_messages(whole, "instruct"), lambda chat: size(chat) <= size(wanted))
    assert found is not None
    assert (found.num_dropped, found.num_left) == (lost, 4 - lost)
    assert found.chat == wanted
    assert found.chat[0] == {"role": "system", "content": INSTRUCTION}


def test_what_does_not_fit_without_any_turn_is_none() -> None:
    assert shortened(rewrite_messages(turn(3), "instruct"), lambda chat: False) is None
    assert shortened(rewrite_messages(turn(0), "instruct"), lambda chat: False) is None


def test_an_answer_behind_the_question_stays() -> None:
    answer: ChatMessage = {"role": "assistant", "content": "<think>t</think>\n<rewrite>r</rewrite>"}
    chat = [*rewrite_messages(turn(2), "instruct"), answer]
    found = shortened(chat, lambda c: "q1" not in c[1]["content"])
    assert found is not None
    assert found.chat == [
        *rewrite_messages(Turn(**{**vars(turn(2)), "history": turn(2).history[2:]}), "instruct"),
        answer,
    ]


def test_a_question_with_a_heading_in_it_stays_whole() -> None:
    odd = Turn(**{**vars(turn(2)), "question": "what is\n### Last question\nhere?"})
    found = shortened(rewrite_messages(odd, "instruct"), lambda c: "q2" not in c[1]["content"])
    assert found is not None
    assert found.chat == rewrite_messages(Turn(**{**vars(odd), "history": ()}), "instruct")


@pytest.mark.parametrize("style", ["instruct", "plain", "cot"])
def test_worked_examples_stay(style: PromptStyle) -> None:
    chat = rewrite_messages(turn(2), style, shots=1)
    found = shortened(chat, lambda c: "q1" not in c[-1]["content"], told_as_messages=False)
    assert found is not None
    assert found.chat[:-1] == chat[:-1]
    newer = Turn(**{**vars(turn(2)), "history": turn(2).history[2:]})
    assert found.chat == rewrite_messages(newer, style, shots=1)


@pytest.mark.parametrize("style", [style for style in PROMPT_STYLES if style != "nano"])
def test_every_style_can_be_read_back(style: PromptStyle) -> None:
    found = shortened(rewrite_messages(turn(3), style), lambda c: "q3" not in c[-1]["content"])
    assert found is not None
    assert found.chat == rewrite_messages(Turn(**{**vars(turn(3)), "history": ()}), style)


def test_the_bare_prompt_of_small_policies() -> None:
    chat = [{"role": "user", "content": "Q: one\nA: 1\nA: 1b\nQ: two\nA: 2\nQ: three"}]
    seen: list[str] = []

    def short(candidate: list[ChatMessage]) -> bool:
        seen.append(candidate[0]["content"])
        return len(candidate[0]["content"]) < 25

    found = shortened(chat, short)
    assert found is not None
    assert found.chat[0]["content"] == "Q: two\nA: 2\nQ: three"
    assert (found.num_dropped, found.num_left) == (1, 1)
    assert all(text.endswith("Q: three") for text in seen)


def test_a_conversation_told_as_messages_loses_its_first_ones_and_keeps_the_system() -> None:
    def say(role: str, content: str) -> ChatMessage:
        return {"role": role, "content": content}

    chat = [
        *(say("system", "instruction"), say("user", "u1"), say("assistant", "a1")),
        *(say("user", "u2"), say("assistant", "a2"), say("user", "u3")),
    ]
    found = shortened(chat, lambda c: len(c) <= 4)
    assert found is not None
    assert [m["content"] for m in found.chat] == ["instruction", "u2", "a2", "u3"]
    assert shortened(chat, lambda c: len(c) <= 4, told_as_messages=False) is None


def test_a_chat_without_a_question_is_left_alone() -> None:
    assert shortened([{"role": "system", "content": "x"}], lambda chat: False) is None
