"""Puts world and conversations together and writes them as a data set folder."""

from dataclasses import dataclass
from pathlib import Path

from convsearch.data.dataset import CORPUS, PASSPORT, QRELS, TURN_INFO, TURNS
from convsearch.data.mini.draw import Draw
from convsearch.data.mini.talk import converse
from convsearch.data.mini.world import make_entities, make_passages
from convsearch.data.outputs import folder_output
from convsearch.data.staging import staged_folder
from convsearch.data.topics import pages_of_golds, topic_switches
from convsearch.files import Qrels, write_qrels, write_turn_info, write_turns
from convsearch.passages import write_passages
from convsearch.passport import write_repeatable_passport
from convsearch.types import Passage, Turn

STAGE, NAME = "data mini", "mini"
DEFAULT_SEED = 20250520
SPLITS = (("train", 340), ("dev", 60), ("test", 100))
"""Split and its number of conversations; no conversation is in two splits."""


@dataclass(frozen=True, kw_only=True)
class MiniData:
    """The whole data set in memory."""

    turns: list[Turn]
    passages: list[Passage]
    qrels: Qrels


def generate_mini(seed: int = DEFAULT_SEED) -> MiniData:
    """Makes the data set; a pure function of the seed."""
    draw = Draw(seed)
    entities = make_entities(draw)
    passages = make_passages(entities, draw)
    turns: list[Turn] = []
    qrels: Qrels = {}
    starts = draw.shuffled(entities)
    splits = draw.shuffled([name for name, count in SPLITS for _ in range(count)])
    for number, split in enumerate(splits):
        start = starts[number % len(starts)]
        for turn, golds in converse(f"mini{number + 1:03d}", split, start, entities, draw):
            turns.append(turn)
            qrels[turn.qid] = dict.fromkeys(golds, 1)
    return MiniData(turns=turns, passages=passages, qrels=qrels)


def write_mini(out_dir: Path, seed: int = DEFAULT_SEED, *, fresh: bool = False) -> dict[str, int]:
    """Writes a data set folder and returns the counts.

    Its passport holds neither time nor versions: the data depend on the seed alone, and the
    passport's own bytes must repeat too. It names the hash of each file instead.
    """
    output = folder_output(out_dir, STAGE, {"name": NAME, "seed": seed})
    if output.standing(fresh=fresh) == "finished":
        return output.counts()
    data = generate_mini(seed)
    with staged_folder(out_dir, owned=output.traces) as staging:
        counts = {
            "num_turns": write_turns(staging / TURNS, data.turns),
            "num_passages": write_passages(staging / CORPUS, data.passages),
            "num_conversations": len({t.conv_id for t in data.turns}),
        }
        write_qrels(staging / QRELS, data.qrels)
        titles = {passage.doc_id: passage.title for passage in data.passages}
        switches = topic_switches(data.turns, pages_of_golds(data.qrels, titles))
        write_turn_info(staging / TURN_INFO, switches)
        for split, _ in SPLITS:
            counts[f"num_turns_{split}"] = sum(t.split == split for t in data.turns)
        write_repeatable_passport(
            staging / PASSPORT,
            stage=STAGE,
            seed=seed,
            counts=counts,
            name=NAME,
            made=output.identity,
            outputs=[staging / file for file in (TURNS, CORPUS, QRELS)],
        )
    return counts
