"""Writes the multi-hop questions over the encyclopaedia as a question folder."""

from pathlib import Path

from convsearch.data.dataset import CORPUS, PASSPORT, QRELS
from convsearch.data.mini.draw import Draw
from convsearch.data.mini.generate import DEFAULT_SEED
from convsearch.data.mini.hops import SPLITS, generate_hops
from convsearch.data.mini.world import make_entities, make_passages
from convsearch.data.outputs import folder_output
from convsearch.data.questions import QUESTIONS, write_questions
from convsearch.data.staging import staged_folder
from convsearch.files import write_qrels
from convsearch.passages import write_passages
from convsearch.passport import write_repeatable_passport

STAGE, NAME = "data hops", "mini_hops"


def write_hops(out_dir: Path, seed: int = DEFAULT_SEED, *, fresh: bool = False) -> dict[str, int]:
    """Writes a question folder over the passages that `write_mini` writes; returns the counts.

    As there, the passport repeats to the byte: it holds hashes and neither time nor versions.
    """
    output = folder_output(
        out_dir,
        STAGE,
        {"name": NAME, "seed": seed},
        results=(QUESTIONS, CORPUS, QRELS),
    )
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    data = generate_hops(seed)
    draw = Draw(seed)
    passages = make_passages(make_entities(draw), draw)
    with staged_folder(out_dir, owned=output.traces) as staging:
        counts = {
            "num_questions": write_questions(staging / QUESTIONS, data.questions),
            "num_passages": write_passages(staging / CORPUS, passages),
        }
        write_qrels(staging / QRELS, data.qrels)
        for split, _ in SPLITS:
            counts[f"mini_{split}"] = sum(q.split == split for q in data.questions)
        write_repeatable_passport(
            staging / PASSPORT,
            stage=STAGE,
            seed=seed,
            counts=counts,
            name=NAME,
            made=output.identity,
            outputs=[staging / file for file in (QUESTIONS, CORPUS, QRELS)],
        )
    return counts
