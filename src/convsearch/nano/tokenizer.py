"""A small tokenizer that makes copying easy: lower-case words, each with its blank, and no marks.

A word then has the same tokens wherever it stands, after a blank, a bracket or a tag, and words
that follow each other in a sentence do so in its tokens, comma or not. So copying is repeating
tokens seen before. Of punctuation only the colon is kept, which ends the names of the speakers.
"""

from collections.abc import Iterable, Sequence

from convsearch.errors import DependencyError, install_command

WORD = r"[^\W_]+(?:['\u2019.][^\W_]+)*"
"""A word: letters and digits; apostrophes and full stops only inside."""
TAGS = ("<think>", "</think>", "<rewrite>", "</rewrite>")
AGENT_TAGS = (
    *(f"<{end}{tag}>" for tag in ("think", "search", "results", "answer") for end in ("", "/")),
    "\n",
)
"""Those of the form `nano` of search agents; the line break stands between two queries."""
WORD_START = "\u0120"
"""How the blank before a word looks in a token."""
PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>"
    "{% else %}<|user|>{{ m['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    tags: Sequence[str] = TAGS,
    *,
    single_digits: bool = False,
):
    """Byte-level BPE with at most `vocab_size` entries, as a Hugging Face fast tokenizer.

    The tags are single tokens and are kept by `skip_special_tokens`; pad, end and the two
    role marks are special. single_digits: each digit is a token, so that a model that compares
    numbers needs to know ten of them.
    """
    try:
        from tokenizers import (
            AddedToken,
            Regex,
            Tokenizer,
            decoders,
            models,
            normalizers,
            pre_tokenizers,
        )
        from tokenizers.trainers import BpeTrainer
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise DependencyError(
            f"transformers is not installed; run {install_command('infer')}"
        ) from error

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    steps = [
        pre_tokenizers.Split(Regex(f"{WORD}|:"), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
    ]
    if single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    core.decoder = decoders.ByteLevel()
    specials = [PAD, END, USER, ASSISTANT]
    core.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=vocab_size - len(tags),
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
