"""The embedded data set: repeatable, honest, and of the promised shape."""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import mini_case
import pytest

from convsearch.data.dataset import load_dataset
from convsearch.data.mini import MiniData, generate_mini, write_mini
from convsearch.data.mini.aspects import ASPECTS
from convsearch.data.mini.kinds import KINDS
from convsearch.prompts.rewrite import rewrite_messages

ROOT = Path(__file__).parents[3]
TRACKED = ROOT / "data" / "mini"


@pytest.fixture(scope="module")
def data() -> MiniData:
    return mini_case.mini()


def test_regeneration_gives_the_tracked_bytes(tmp_path: Path) -> None:
    write_mini(tmp_path / "mini")
    made = {path.name: path.read_bytes() for path in (tmp_path / "mini").iterdir()}
    tracked = {path.name: path.read_bytes() for path in TRACKED.iterdir()}
    assert set(made) == {
        "turns.jsonl", "corpus.jsonl", "qrels.trec", "turn_info.jsonl", "run.json",
    }  # fmt: skip
    assert made == tracked


def test_another_seed_makes_another_world(data: MiniData) -> None:
    other = generate_mini(seed=7)
    names, other_names = ({p.title for p in d.passages} for d in (data, other))
    assert len(names & other_names) < 10


def test_tracked_files_load_and_stay_small() -> None:
    dataset = load_dataset(TRACKED)
    assert dataset.name == "mini"
    assert (TRACKED / "turns.jsonl").stat().st_size < 1_900_000
    assert (TRACKED / "corpus.jsonl").stat().st_size < 1_500_000


def test_shape(data: MiniData) -> None:
    assert 2_400 <= len(data.passages) <= 2_600
    assert 2_900 <= len(data.turns) <= 3_100
    assert sum(kind.count for kind in KINDS.values()) == 400
    assert len({p.title for p in data.passages}) == 400
    assert len({p.doc_id for p in data.passages}) == len(data.passages)
    assert len({p.text for p in data.passages}) == len(data.passages)


def test_splits_are_by_conversation(data: MiniData) -> None:
    splits = defaultdict(set)
    for turn in data.turns:
        splits[turn.conv_id].add(turn.split)
    assert all(len(found) == 1 for found in splits.values())
    sizes = {
        name: sum(found == {name} for found in splits.values()) for name in ("train", "dev", "test")
    }
    assert sizes == {"train": 340, "dev": 60, "test": 100}


def test_topic_switches_are_changes_of_what_is_asked_about(data: MiniData) -> None:
    titles = {p.doc_id: p.title for p in data.passages}
    switches = load_dataset(TRACKED).topic_switches()
    assert list(switches) == [turn.qid for turn in data.turns]
    for before, turn in pairwise(data.turns):
        about, previous = (titles[next(iter(data.qrels[t.qid]))] for t in (turn, before))
        assert switches[turn.qid] == (None if turn.turn == 1 else about != previous)
    assert sum(switch is True for switch in switches.values()) > 300


def test_history_is_what_was_said_before(data: MiniData) -> None:
    for before, turn in pairwise(data.turns):
        if turn.turn == 1:
            assert turn.history == ()
        else:
            assert turn.conv_id == before.conv_id
            assert turn.turn == before.turn + 1
            assert turn.history[:-2] == before.history
            assert turn.history[-2].text == before.question
            assert turn.history[-1].role == "agent"


def test_every_turn_can_be_resolved_from_what_a_policy_sees(data: MiniData) -> None:
    titles = {p.doc_id: p.title for p in data.passages}
    for turn in data.turns:
        golds = list(data.qrels[turn.qid])
        assert 1 <= len(golds) <= 2
        assert len({titles[gold] for gold in golds}) == 1
        assert titles[golds[0]] in rewrite_messages(turn, "nano")[0]["content"]


def test_answers_are_short_and_also_name_what_is_not_meant(data: MiniData) -> None:
    titles = {p.doc_id: p.title for p in data.passages}
    names = set(titles.values())
    answers = [(t, m.text) for t in data.turns for m in t.history if m.role == "agent"]
    assert max(len(text.split()) for _, text in answers) <= 15
    last = [t for t in data.turns if t.turn == 5 and t.split == "test"]
    ambiguous = sum(sum(name in turn.history_query for name in names) >= 2 for turn in last)
    assert ambiguous / len(last) > 0.8


def test_later_questions_rarely_name_what_they_are_about(data: MiniData) -> None:
    titles = {p.doc_id: p.title for p in data.passages}
    later = [t for t in data.turns if t.turn > 1]
    named = sum(titles[next(iter(data.qrels[t.qid]))] in t.question for t in later)
    assert named == 0


def test_every_kind_names_known_aspects_and_relations() -> None:
    for kind in KINDS.values():
        assert set(kind.aspects) <= set(ASPECTS)
    for aspect in ASPECTS.values():
        assert set(aspect.relation) <= set(KINDS)
        uses_relation = any("{R}" in text for text in (*aspect.leads, *aspect.answers))
        assert uses_relation == bool(aspect.relation)
        gold_slots = ("{v}", "{w}", "{y}", "{R}")
        assert not any(slot in q for q in aspect.questions + aspect.ellipses for slot in gold_slots)
