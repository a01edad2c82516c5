"""What the end-to-end tests of agent training share: a taught tiny policy, facts, questions.

A fact is three words: two name a thing, the third is made by it. The policy is taught by episodes
that the state machine played: it searches for two words, reads, and guesses one of four answers.
"""

import random
from pathlib import Path

from tiny_model import WORDS, make_tiny_model

from convsearch.agent import Evidence, messages, observe, start, step, strategy, tool_format
from convsearch.data.parquet import write_agent_parquet
from convsearch.files import write_qrels
from convsearch.passages import write_passages
from convsearch.types import Passage, Question

ANSWERS, NAMES = WORDS[:4], WORDS[4:]
TAGS = [
    f"<{slash}{tag}>" for tag in ("think", "search", "results", "answer") for slash in ("", "/")
]
NUM_FACTS, NUM_QUESTIONS = 60, 16


def write_agent_case(folder: Path) -> None:
    """`corpus.jsonl`, `qrels.trec`, `train.parquet`."""
    rng = random.Random(0)
    things = rng.sample([(a, b) for a in NAMES for b in NAMES if a != b], NUM_FACTS)
    made = [rng.choice(ANSWERS) for _ in things]
    passages = [
        Passage(doc_id=f"p{i}", title="", text=f"{a} {b} makes {fact}")
        for i, ((a, b), fact) in enumerate(zip(things, made, strict=True))
    ]
    write_passages(folder / "corpus.jsonl", passages)
    questions = [
        Question(
            qid=f"q{i}",
            dataset="toy",
            question=" ".join(things[i]),
            answers=(made[i],),
            type="bridge",
            split="train",
        )
        for i in range(NUM_QUESTIONS)
    ]
    qrels = {f"q{i}": {f"p{i}": 1} for i in range(NUM_QUESTIONS)}
    write_qrels(folder / "qrels.trec", qrels)
    write_agent_parquet(folder / "train.parquet", questions, qrels)


def make_agent_policy(folder: Path, steps: int) -> Path:
    """A tiny model that plays the form `nano`.

    One thread teaches it: two that wait for each other on a busy machine take many times longer.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return make_tiny_model(folder, taught_steps=steps, tags=TAGS, lesson=_episode)
    finally:
        torch.set_num_threads(threads)


def _episode(rng: random.Random) -> list[dict[str, str]]:
    """A trajectory, made by the machine itself."""
    one, other = rng.sample(NAMES, 2)
    state = start("q", f"{one} {other}", strategy("expand_search"), tool_format("nano"))
    wanted = [f"{one} {other}", f"{rng.choice(NAMES)} {other}"]
    state, _ = step(state, f"<think>{one}</think>\n{state.form.render_call(wanted)}")
    facts = [f"{one} {other} makes {rng.choice(ANSWERS)}" for _ in range(2)]
    state = observe(state, Evidence(text="\n".join(facts)))
    answer = rng.choice(ANSWERS)
    state, _ = step(state, f"<think>{other}</think>\n<answer>{answer}</answer>")
    return [{"role": m["role"], "content": m["content"]} for m in messages(state)]
