"""Small real models for tests, made on the spot: a Qwen2 shape and a tokenizer of its own.

Run as a program, `python tests/tiny_model.py FOLDER [STEPS]` leaves one behind to play with.
"""

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convsearch.prompts.rewrite import format_response

WORDS = [
    "amber", "birch", "castle", "delta", "ember", "falcon", "garden", "harbor", "island",
    "jasmine", "kettle", "lantern", "marble", "needle", "orchid", "pepper", "quartz", "river",
    "saddle", "temple", "umbra", "violin", "willow", "yellow", "zephyr", "anchor", "bridge",
    "candle", "desert", "engine", "forest", "glacier", "hammer", "iron", "jungle", "kernel",
    "ladder", "meadow", "nectar", "ocean",
]  # fmt: skip
"""The words the model knows; tests build their corpora from them."""
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TAGS = ["<think>", "</think>", "<rewrite>", "</rewrite>"]


Chat = list[dict[str, str]]


def make_tiny_model(
    out: Path,
    *,
    taught_steps: int = 0,
    tied: bool = False,
    tags: Sequence[str] = TAGS,
    lesson: Callable[[random.Random], Chat] | None = None,
) -> Path:
    """Writes a random model of some 100,000 parameters in Hugging Face form; returns its folder.

    taught_steps: updates (about 20 ms each) on well-formed responses with random words, after which
    (150 and up) most samples of the model are well formed and differ from each other. tags: what
    is one token. lesson: makes the chats to teach in place of those.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tokenizer(tags)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=1024,
            tie_word_embeddings=tied,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
            pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
            bos_token_id=None,
        )
    )
    if taught_steps:
        _teach(model, tokenizer, taught_steps, lesson or _rewriting)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def _tokenizer(tags: Sequence[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [f"{word} {word}" for word in [*WORDS, "user", "assistant", "system"]] * 4
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


def _rewriting(rng: random.Random) -> Chat:
    question = " ".join(rng.choices(WORDS, k=3))
    answer = format_response(rng.choice(WORDS), " ".join(rng.choices(WORDS, k=2)))
    return [
        {"role": "user", "content": f"Q: {question}"},
        {"role": "assistant", "content": answer},
    ]


def _teach(model: Any, tokenizer: Any, steps: int, lesson: Callable[[random.Random], Chat]) -> None:
    import torch

    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        texts = [
            tokenizer.apply_chat_template(lesson(rng), tokenize=False).rstrip("\n")
            for _ in range(16)
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
        loss = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


if __name__ == "__main__":
    make_tiny_model(Path(sys.argv[1]), taught_steps=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
