"""A small support site as its owner would export it: 60 passages, 15 conversations of 4 turns."""

import csv
import json
from pathlib import Path

PRODUCTS = (
    "Lumen lamp",
    "Brook kettle",
    "Arden heater",
    "Pico router",
    "Vela speaker",
    "Moss humidifier",
    "Tern camera",
    "Onyx keyboard",
    "Dune fan",
    "Kite drone",
    "Fjord fridge",
    "Ember oven",
    "Quill printer",
    "Sable headset",
    "Pebble watch",
)
ASPECTS = (
    ("resetting", "hold the {key} button for {n} seconds", "How do I reset the {p}?"),
    (
        "warranty",
        "repairs are free for {n} months after purchase",
        "How long is it under warranty?",
    ),
    ("cleaning", "wipe it with a damp cloth, dry it for {n} minutes", "And how do I clean it?"),
    ("returns", "send it back within {n} days in its box", "Can I still send it back?"),
)
"""Title, what the passage says, what people ask: only the first question names the product."""


def write_site(folder: Path) -> tuple[Path, Path]:
    """Writes `chats.jsonl` (chat log) and `kb.csv`; returns both."""
    passages, chats = [], []
    for number, product in enumerate(PRODUCTS):
        messages = [{"role": "assistant", "content": "Hello, how can I help?"}]
        for at, (title, says, asks) in enumerate(ASPECTS):
            text = says.format(key=("power", "menu", "mode")[number % 3], n=5 + 2 * number + at)
            doc_id = 100 + 4 * number + at
            passages.append((doc_id, f"{product}: {title}", f"For the {product}, {text}."))
            messages += [
                {"role": "user", "content": asks.format(p=product), "relevant": [doc_id]},
                {"role": "assistant", "content": f"With the {product}, {text}."},
            ]
        chats.append({"id": number + 1, "messages": messages})
    with (folder / "kb.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("id", "title", "text"), *passages])
    lines = "".join(json.dumps(chat) + "\n" for chat in chats)
    (folder / "chats.jsonl").write_text(lines, encoding="utf-8")
    return folder / "chats.jsonl", folder / "kb.csv"
