"""A finished run folder, written by hand: what the report must be able to read. Shared by tests."""

import json
from pathlib import Path

from convsearch.eval import METRICS
from convsearch.files import write_jsonl, write_turns
from convsearch.pipeline.layout import COMPARED, RunLayout
from convsearch.pipeline.summary import Result, Summary, write_summary
from convsearch.types import Message, Turn

HOSTILE = '<script>alert("x")</script> & <b>bold</b>'
NUM_CONVERSATIONS = 12


def make_summary(**changes: object) -> Summary:
    mrr = {"raw": 0.1, "history": 0.3, "base": 0.2, "sft": 0.32, "grpo": 0.4}
    fields: dict[str, object] = {
        "dataset": "mini",
        "eval_split": "test",
        "num_queries": 2 * NUM_CONVERSATIONS,
        "num_conversations": NUM_CONVERSATIONS,
        "stages": {
            name: Result(
                metrics=dict.fromkeys(METRICS, value),
                mrr_interval=(round(value - 0.05, 6), round(value + 0.05, 6)),
                num_malformed=1 if name == "grpo" else 0,
            )
            for name, value in mrr.items()
        },
        "seconds": {"data": 1.5, "grpo": 60.0},
        "peak_rss_mb": 2048.0,
        "versions": {"python": "3.11.7"},
        "seed": 0,
        "policy": "nano",
        "git": "abc123",
        "date": "2026-01-02",
        "command": "convsearch quickstart",
        "distill_counts": {"candidates": 800, "kept": 200},
    }
    return Summary(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def make_run_folder(root: Path) -> Path:
    """Writes the files of a finished run; returns its folder."""
    layout = RunLayout(root=root)
    turns = [
        Turn(
            qid=f"c{c}_{t}",
            conv_id=f"c{c}",
            turn=t,
            split="test",
            question=f"question {t} of {c}? {HOSTILE}",
            history=()
            if t == 1
            else (
                Message(role="user", text=f"first of {c}"),
                Message(role="agent", text=f"answer {HOSTILE}"),
            ),
        )
        for c in range(NUM_CONVERSATIONS)
        for t in (1, 2)
    ]
    write_turns(layout.data / "turns.jsonl", turns)
    for i, name in enumerate(COMPARED):
        write_jsonl(
            layout.queries(name),
            (
                {
                    "qid": turn.qid,
                    "query": f"{name} query {HOSTILE}",
                    "status": "malformed" if name == "grpo" and turn.qid == "c0_1" else "ok",
                    "rank": None if n % 5 == i else 1 + (n * 7) % 90,
                }
                for n, turn in enumerate(turns)
            ),
        )
    with layout.metrics.open("w") as out:
        for step in range(1, 6):
            line = {
                "stage": "grpo",
                "step": step,
                "critic/score/mean": step / 5,
                "rewrite/malformed": 0.1,
                "response_length/mean": 30.0 + step,
                "actor/entropy": 1.0 / step,
            }
            out.write(json.dumps(line) + "\n")
    write_summary(layout.summary, make_summary())
    return layout.root
