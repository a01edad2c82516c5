"""Turns over the tiny model's words, and an inference run in a process that can be killed."""

import multiprocessing
import os
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


def rewrite(name: str, model: str, pause_s: str, *outs: str) -> None:
    """Writes 26 rewrites to each of `outs` in blocks of 4, saying `block` before each; PAUSE_S
    between blocks leaves time to kill it."""
    _say(f"pid {os.getpid()}")
    engine = open_engine(name, None if model == "-" else model)

    def told(done: int, total: int) -> None:
        _say(f"block {done}/{total}")
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


def main() -> None:
    """For each line `ENGINE MODEL PAUSE_S OUT...` of standard input a process that does it, and
    `ended CODE` after it. They are forked, since most of such a run are imports."""
    import transformers

    assert transformers.Qwen2ForCausalLM is not None  # loaded now, as it is loaded at first use
    fork = multiprocessing.get_context("fork")
    for line in sys.stdin:
        run = fork.Process(target=rewrite, args=line.split())
        run.start()
        run.join()
        _say(f"ended {run.exitcode}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
