"""Is a model folder whole? It is loaded as any user would, asked for its next words, and looked at.

Importing this module is light; its functions need torch and transformers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convsearch.errors import CheckpointError

PROBE = "which lighthouse stands on Bell Rock? how long did it take to build?"


@dataclass(frozen=True, kw_only=True)
class LoadTest:
    """What came of it."""

    text: str
    """The model's words, most likely ones first; special tokens left out."""
    num_tokens: int
    """How many tokens it made."""
    num_parameters: int
    dtype: str
    """Precision of the weights, such as bfloat16."""


def load_test(folder: Path, *, max_tokens: int = 24) -> LoadTest:
    """Raises CheckpointError where a weight is missing or unknown, where the model computes no
    finite numbers, or writes nothing."""
    import torch

    model, tokenizer = load_whole(folder)
    ids = probe_ids(tokenizer)
    with torch.inference_mode():
        if not torch.isfinite(model(input_ids=ids).logits).all():
            raise CheckpointError(
                f"{folder}: the model computes numbers that are not finite; its training diverged, "
                "take an earlier checkpoint"
            )
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )[0, ids.shape[1] :]
    if not len(made):
        raise CheckpointError(f"{folder}: the model writes nothing; look at its training")
    return LoadTest(
        text=tokenizer.decode(made, skip_special_tokens=True),
        num_tokens=len(made),
        num_parameters=sum(p.numel() for p in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
    )


def load_whole(folder: Path, *, dtype: str = "auto") -> tuple[Any, Any]:
    """Model and tokenizer of a folder. Raises CheckpointError where a weight is missing or has no
    place in the model."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the model does not load: {error}") from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(str(name) for name in report[what])
        if names:
            raise CheckpointError(
                f"{folder}: {len(names)} {what.replace('_keys', '')} weights, such as {names[0]}; "
                "the checkpoint is not of this model, or not whole"
            )
    return model.eval(), tokenizer


def probe_ids(tokenizer: Any) -> Any:
    """Token ids (1, length) of the probe, as a chat where the tokenizer knows chats."""
    import torch

    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": PROBE}], tokenize=False, add_generation_prompt=True
        )
    else:
        text = PROBE
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
