"""Turns over the tiny model's words, and an inference run in a process that can be killed."""

import random
import sys
import time
from pathlib import Path

from tiny_model import WORDS

from convsearch.infer import SamplingParams, infer_rewrites, open_engine
from convsearch.types import Message, Turn

PARAMS = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=24)


def some_turns(count: int, split: str = "train") -> list[Turn]:
    """Questions of three words, three turns a conversation."""
    rng = random.Random(7)
    turns = []
    for i in range(count):
        said = [" ".join(rng.choices(WORDS, k=3)) for _ in range(1 + 2 * (i % 3))]
        history = tuple(
            Message(role="agent" if j % 2 else "user", text=text) for j, text in enumerate(said[1:])
        )
        turns.append(
            Turn(
                qid=f"q{i}",
                conv_id=f"c{i // 3}",
                turn=i % 3 + 1,
                split=split,
                question=said[0],
                history=history,
            )
        )
    return turns


def main() -> None:
    """`rewriting.py ENGINE MODEL PAUSE_S OUT...`: writes 26 rewrites to each OUT in blocks of 4,
    saying `block` before each; PAUSE_S between blocks leaves time to kill it."""
    name, model, pause_s, *outs = sys.argv[1:]
    engine = open_engine(name, None if model == "-" else model)

    def told(done: int, total: int) -> None:
        sys.stdout.write(f"block {done}/{total}\n")
        sys.stdout.flush()
        time.sleep(float(pause_s) if done else 0)

    for out in outs:
        infer_rewrites(
            some_turns(13),
            engine,
            out_path=Path(out),
            style="nano",
            params=PARAMS,
            seed=3,
            candidates=2,
            batch_size=4,
            on_progress=told,
        )


if __name__ == "__main__":
    main()
