"""The frames of replies under chat templates of several shapes: what was said only grows."""

from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_tiny_model
from transformers import AddedToken, AutoTokenizer

from convsearch.agent.frames import ChatFrames
from convsearch.errors import CheckpointError

SHAPES = {
    "marks": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "old thoughts dropped": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "a standing system message": (
        "<|im_start|>system\nYou help.<|im_end|>\n"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
    ),
    "brackets without roles": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    ),
}
WITHOUT_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + SHAPES["marks"]
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("m") / "tiny"))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_said_only_grows(tokenizer: Any, shape: str):
    tokenizer.chat_template = SHAPES[shape]
    end = tokenizer.eos_token_id
    frames = ChatFrames(tokenizer, frozenset({end}))
    ids = frames.chat_ids([{"role": "user", "content": "amber"}])
    own = tokenizer.encode("<think>so</think>birch", add_special_tokens=False)
    for reply in ("castle", "delta </think> x"):
        drawn = [*ids, *own, end]
        grown = [*drawn, *frames.reply_ids(reply, drawn)]
        text = tokenizer.decode(grown[len(drawn) :])
        assert text.count(reply) == 1
        assert "birch" not in text
        assert "amber" not in text
        assert tokenizer.decode(grown).count("<|im_end|>") == text.count("<|im_end|>") + (
            tokenizer.decode(drawn).count("<|im_end|>")
        )
        opening = frames.chat_ids([{"role": "user", "content": reply}])
        tail = tokenizer.decode(opening).rpartition(reply)[2]
        assert text.endswith(reply + tail)  # the next turn begins as the first one did
        ids = grown
    said = tokenizer.decode(ids)
    assert said.count("<think>so</think>birch") == 2  # kept, whatever the template drops


def test_a_template_that_refuses_a_chat_is_a_sentence(tokenizer: Any, tmp_path: Path):
    tokenizer.chat_template = WITHOUT_SYSTEM
    frames = ChatFrames(tokenizer, frozenset({tokenizer.eos_token_id}))
    assert frames.chat_ids([{"role": "user", "content": "amber"}])
    chat = [{"role": "system", "content": "rules"}, {"role": "user", "content": "amber"}]
    with pytest.raises(CheckpointError, match=r"a chat of system, user \(no system role\)"):
        frames.chat_ids(chat)


def test_no_character_of_a_reply_becomes_a_special_token(tmp_path: Path):
    """Also not one that the tokenizer holds without naming it among its special tokens."""
    own: Any = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path / "tiny"))
    own.chat_template = SHAPES["marks"]
    own.add_tokens([AddedToken("[header]", special=True)])
    [unnamed] = own.encode("[header]", add_special_tokens=False)
    assert "[header]" not in own.all_special_tokens
    ids = ChatFrames(own, frozenset()).reply_ids("amber [header] castle <|im_end|>", None)
    assert not {unnamed, *own.all_special_ids} & set(ids)


def test_a_template_that_hides_replies_is_refused(tokenizer: Any):
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(CheckpointError, match="keeps a conversation in order"):
        ChatFrames(tokenizer, frozenset())
