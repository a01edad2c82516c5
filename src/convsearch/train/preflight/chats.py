"""Chats out of the forms that training programs write them in. Pure.

Everything raises ValueError with the end of a sentence; the caller names file and row.
"""

import json
import re
from collections.abc import Mapping

from convsearch.types import ChatMessage

Row = Mapping[str, object]
ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    **{"human": "user", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant"},
    **{"bot": "assistant", "agent": "assistant", "developer": "system"},
}
"""Names of roles that are in use -> those of chat templates."""
ANSWERED = (
    ("prompt", ("response", "completion", "answer", "chosen", "output")),
    ("question", ("response", "answer")),
    ("instruction", ("output", "response")),
)
"""Columns of a prompt, and of the answer to it."""
SFT_FORM = 'messages: [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]'
_JSON_LIST = re.compile(r"\s*\[\s*\{")
"""How JSON text of messages begins, and no question does."""
PROMPT_FORM = 'prompt: [{"role": "user", "content": ...}]'


def sft_chat(row: Row) -> list[ChatMessage]:
    """The chat to learn from one row: `messages`, ShareGPT's `conversations`, a prompt and its
    answer in columns of their own, or in `extra_info` as the original's files have them."""
    chat = _sft_source(row)
    if "reward_model" in row and "messages" not in row and not chat[-1]["content"].strip():
        raise ValueError('no "messages" in it: a prompt for convsearch grpo, not an example')
    if not any(m["role"] == "assistant" for m in chat):
        raise ValueError("no message of the assistant, so there is nothing to learn")
    if not any(m["role"] == "assistant" and m["content"].strip() for m in chat):
        raise ValueError("the assistant's message is empty, so there is nothing to learn")
    return chat


def prompt_chat(row: Row) -> list[ChatMessage]:
    """The chat that is answered in reinforcement: `prompt`, as messages or as one text."""
    value = row.get("prompt")
    if isinstance(value, str) and not _JSON_LIST.match(value):
        value = [{"role": "user", "content": value}]
    chat = read_chat(value, "prompt")
    if chat[-1]["role"] != "user" or not chat[-1]["content"].strip():
        raise ValueError("the prompt does not end in a message of the user with text")
    return chat


def check_target(row: Row) -> None:
    """Whether the reward finds what a prompt asks for: a query id, or ids of gold passages."""
    info, model = row.get("extra_info"), row.get("reward_model")
    qid = info.get("query_id") if isinstance(info, Mapping) else None
    golds = model.get("ground_truth") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping):
        raise ValueError('"reward_model" holds no "ground_truth"')
    if (qid is None or not str(qid)) and not golds:
        raise ValueError(
            'neither "extra_info.query_id" nor ids of passages in "reward_model.ground_truth"'
        )
    if row.get("agent_name") not in (None, "single_turn_agent"):
        raise ValueError(
            f"made for the agent {row['agent_name']!r}; train it with verl/examples/expand_search"
        )


def _sft_source(row: Row) -> list[ChatMessage]:
    if "messages" in row:
        return read_chat(row["messages"], "messages")
    if "conversations" in row:
        return read_chat(row["conversations"], "conversations")
    info = row.get("extra_info")
    for source in (row, info if isinstance(info, Mapping) else {}):
        for asked, answers in ANSWERED:
            for answer in answers:
                if source.get(asked) is not None and isinstance(source.get(answer), str):
                    return _answered(source, asked, answer)
    raise ValueError(f"no messages in it; wanted is {SFT_FORM}")


def _answered(source: Row, asked: str, answer: str) -> list[ChatMessage]:
    prompt = source[asked]
    more = source.get("input") if asked == "instruction" else None
    if isinstance(prompt, str) and not _JSON_LIST.match(prompt):
        text = f"{prompt}\n{more}" if isinstance(more, str) and more.strip() else prompt
        chat: list[ChatMessage] = [{"role": "user", "content": text}]
    else:
        chat = read_chat(prompt, asked)
    return [*chat, {"role": "assistant", "content": str(source[answer])}]


def read_chat(value: object, name: str) -> list[ChatMessage]:
    """A list of messages, or JSON text of one; of each `role` (or `from`) and `content` (or
    `value`, or a list of text parts)."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f'"{name}" is text and no JSON of a list of messages') from None
    if value is None:
        raise ValueError(f'"{name}" is null')
    if not isinstance(value, list):
        raise ValueError(f'"{name}" is no list of messages')
    if not value:
        raise ValueError(f'"{name}" is an empty list')
    return [_message(entry, f"{name}[{i}]") for i, entry in enumerate(value)]


def _message(entry: object, where: str) -> ChatMessage:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is no message with a role and content")
    role, content = entry.get("role"), entry.get("content")
    role = entry.get("from") if role is None else role
    content = entry.get("value") if content is None else content
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise ValueError(
            f"{where} has the role {role!r}; known are system, user, assistant and tool"
        )
    if isinstance(content, list):
        content = _joined(content)
    if not isinstance(content, str):
        raise ValueError(f'{where} has no text in "content"')
    return {"role": ROLES[role.lower()], "content": content}


def _joined(parts: list[object]) -> str | None:
    """The text of a message in parts; None where one of them is something else."""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None
