"""The untrained model of a nano policy or agent: its shape, and what it knows of the vocabulary."""

from typing import TYPE_CHECKING, Protocol

from convsearch.errors import DependencyError, install_command
from convsearch.nano.circuit import ROPE_THETA, TokenTraits, set_copying
from convsearch.nano.tokenizer import ASSISTANT, END, PAD, USER, WORD_START

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


class Shape(Protocol):
    """Sizes of a model, as the settings hold them, and the seed of its weights."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def head_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def seed(self) -> int: ...


def require_torch():
    """The module torch. Raises DependencyError where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise DependencyError(f"torch is not installed; run {install_command('infer')}") from error
    return torch


def inverse_document_frequency(
    tokenizer: "PreTrainedTokenizerFast", texts: list[str]
) -> "torch.Tensor":
    """log(texts / (texts with the token + 1)); [vocab_size]."""
    torch = require_torch()
    found = torch.zeros(len(tokenizer))
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert isinstance(encoded, list)
    for ids in encoded:
        found[list(set(ids))] += 1
    return torch.log(len(texts) / (found + 1))


def token_traits(
    tokenizer: "PreTrainedTokenizerFast", idf: "torch.Tensor", tags: tuple[str, ...]
) -> TokenTraits:
    """Rarity = idf, standardised and within 3 of the mean; the lowest for marks and `tags`, the
    mean for tokens inside words."""
    torch = require_torch()
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marks = torch.tensor([token in (PAD, END, USER, ASSISTANT, *tags) for token in tokens])
    inside = torch.tensor([not token.startswith(WORD_START) for token in tokens]) & ~marks
    rarity = ((idf - idf.mean()) / idf.std()).clamp(-3, 3)
    rarity[inside] = 0
    rarity[marks] = -3
    vocabulary = tokenizer.get_vocab()
    return TokenTraits(
        rarity=rarity,
        inside_word=inside.float(),
        user=vocabulary[USER],
        assistant=vocabulary[ASSISTANT],
    )


def new_model(
    shape: Shape, tokenizer: "PreTrainedTokenizerFast", traits: TokenTraits, *, begins: bool
) -> "LlamaForCausalLM":
    """A model whose first weights copy (`convsearch.nano.circuit`); begins: see `set_copying`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        head_dim=shape.head_size,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        attention_bias=True,  # as in Qwen2: lets a head look at a position whatever stands there
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[PAD],
    )
    model = LlamaForCausalLM(config)
    generator = require_torch().Generator().manual_seed(shape.seed)
    set_copying(model, traits, generator, begins=begins)
    return model
