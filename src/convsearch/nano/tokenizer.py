"""A small tokenizer that makes copying easy: lower case, and every word starts with its blank.

A word then has the same tokens wherever it stands, after a blank, after a tag or at the start of
a line, so copying it is repeating tokens seen before.
"""

from collections.abc import Iterable

from convsearch.errors import DependencyError

TAGS = ("<think>", "</think>", "<rewrite>", "</rewrite>")
PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>"
    "{% else %}<|user|>{{ m['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int):
    """Byte-level BPE with at most `vocab_size` entries, as a Hugging Face fast tokenizer.

    The four tags are single tokens and are kept by `skip_special_tokens`; pad, end and the two
    role marks are special.
    """
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
        from tokenizers.trainers import BpeTrainer
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise DependencyError(
            "transformers is not installed; run pip install 'convsearch[infer]'"
        ) from error

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    specials = [PAD, END, USER, ASSISTANT]
    core.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=vocab_size - len(TAGS),
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
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
