"""The tokenizer keeps its promises: words have one form, tags are single tokens, chats append."""

import pytest

from convsearch.nano.tokenizer import TAGS, WORD_START, train_tokenizer
from convsearch.prompts import format_response

TEXTS = ["the quick brown fox jumps over the lazy dog"] * 30 + ["Zyx Quorn of Étampes"] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


def test_tags_are_single_tokens_that_decoding_keeps(tokenizer) -> None:
    for tag in TAGS:
        assert len(tokenizer.tokenize(tag)) == 1
    text = format_response("zyx", "zyx quorn étampes")
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(decoded.split()) == "".join(text.split())


def test_a_word_has_the_same_tokens_wherever_it_stands(tokenizer) -> None:
    alone = tokenizer.tokenize("quorn")
    for text in (
        "the quorn",
        "<rewrite>quorn",
        "<rewrite>Quorn</rewrite>",
        "the (Quorn)",
        "x-quorn",
    ):
        tokens = tokenizer.tokenize(text)
        assert any(tokens[i : i + len(alone)] == alone for i in range(len(tokens))), text


def test_words_in_a_row_are_tokens_in_a_row_whatever_stands_between(tokenizer) -> None:
    plain = tokenizer.tokenize("zyx quorn étampes")
    assert tokenizer.tokenize('Zyx, "Quorn" (Étampes)!') == plain


def test_the_chat_only_ever_grows(tokenizer) -> None:
    chat = [
        {"role": "user", "content": "Q: who"},
        {"role": "assistant", "content": format_response("a", "b")},
    ]
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert whole == prompt + chat[1]["content"] + tokenizer.eos_token


def test_single_digits_are_tokens_and_the_number_comes_back() -> None:
    years = [f"made in the year {year}" for year in range(100, 999)]
    whole, single = (train_tokenizer(years, 600, single_digits=each) for each in (False, True))
    assert whole.tokenize("year 155")[1:] != [WORD_START, "1", "5", "5"]
    assert single.tokenize("year 155")[1:] == [WORD_START, "1", "5", "5"]
    assert single.decode(single.encode("year 155, 683")).split() == ["year", "155", "683"]
