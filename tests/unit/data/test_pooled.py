"""The pooled format: repairs are counted, everything else that is wrong is named."""

import gzip
import json
from pathlib import Path

import pytest

from convsearch.data.dataset import load_dataset
from convsearch.data.pooled import convert_pooled
from convsearch.data.pooled_rewrites import write_field_rewrites
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.files import read_rewrites
from convsearch.passages import iter_passages
from convsearch.types import Message

Record = dict[str, object]


def passage(**changes: object) -> Record:
    return {"id": "d1", "title": "T", "text": "x", "collection": "c", **changes}


def said(*lines: str) -> list[dict[str, str]]:
    """`u:text` or `a:text` as messages."""
    roles = {"u": "user", "a": "agent"}
    return [{"role": roles[line[0]], "text": line[2:]} for line in lines]


def turn(**changes: object) -> Record:
    record: Record = {
        "id": "c_1",
        "conv": "c",
        "turn": 1,
        "split": "train",
        "question": "who?",
        "history": [],
        "gold": ["d1"],
        "answer": "Ada",
        "rewrite": None,
    }
    return {**record, **changes}


def make_source(folder: Path, corpus: list[Record], **splits: list[Record]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, records in {"corpus": corpus, **splits}.items():
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def test_every_turn_arrives_and_nothing_of_the_gold_with_it(tmp_path: Path) -> None:
    source = make_source(
        tmp_path / "toy",
        [passage(), passage(id="d2", title=None)],
        train=[turn(), turn(id="c_2", turn=2, gold=["d2", "d1"])],
        dev=[turn(id="e_1", conv="e", split="dev", answer="SECRET", rewrite="SECRET")],
    )
    counts = convert_pooled(source, tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    assert dataset.name == "toy"
    assert [t.qid for t in dataset.turns()] == ["c_1", "c_2", "e_1"]
    assert dataset.qrels["c_2"] == {"d2": 1, "d1": 1}
    assert counts["num_turns"] == 3
    assert counts["num_turns_dev"] == 1
    assert counts["num_passages"] == 2
    assert counts["untitled_passages"] == 1
    assert "SECRET" not in dataset.turns_path.read_text()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"] == counts


def test_the_name_can_be_given(tmp_path: Path) -> None:
    source = make_source(tmp_path / "toy", [passage()], train=[turn()])
    convert_pooled(source, tmp_path / "out", name="other")
    assert load_dataset(tmp_path / "out").name == "other"


def test_page_passages_win_over_gold(tmp_path: Path) -> None:
    record = turn(page_passages=["d1", "d2"], gold=["d3"], gold_page="T")
    source = make_source(tmp_path / "toy", [passage(id=f"d{i}") for i in (1, 2, 3)], train=[record])
    convert_pooled(source, tmp_path / "out")
    assert set(load_dataset(tmp_path / "out").qrels["c_1"]) == {"d1", "d2"}


def test_topic_switches_stand_apart_from_the_turns(tmp_path: Path) -> None:
    first = said("u:a", "a:b")
    second = [*first, *said("u:c", "a:d")]
    source = make_source(
        tmp_path / "toy",
        [passage(id="d1", title="A"), passage(id="d2", title="B"), passage(id="d3", title="A")],
        train=[
            turn(id="c_1", gold=["d1"]),
            turn(id="c_2", turn=2, history=first, gold=["d2"]),
            turn(id="c_3", turn=3, history=second, gold=["d2", "d3"]),
            turn(id="p_1", conv="p", gold=["d1"], gold_page="A"),
            turn(id="p_2", conv="p", turn=2, history=first, gold=["d1"], gold_page="C"),
            turn(id="q_2", conv="q", turn=2, history=first, gold=["d1"]),
        ],
    )
    counts = convert_pooled(source, tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    assert dataset.topic_switches() == {
        "c_1": None, "c_2": True, "c_3": False, "p_1": None, "p_2": True, "q_2": None,
    }  # fmt: skip
    assert (counts["num_topic_switches"], counts["num_same_topic"]) == (2, 1)
    assert "topic_switch" not in dataset.turns_path.read_text()


def test_without_titles_nothing_is_said_about_topics(tmp_path: Path) -> None:
    pair = [turn(), turn(id="c_2", turn=2, history=said("u:a", "a:b"))]
    source = make_source(tmp_path / "toy", [passage(title=None)], train=pair)
    convert_pooled(source, tmp_path / "out")
    assert not (tmp_path / "out" / "turn_info.jsonl").exists()
    assert load_dataset(tmp_path / "out").topic_switches() == {}


def test_human_rewrites_become_rewrites_and_gaps_are_counted(tmp_path: Path) -> None:
    turns = [turn(id="c 1", split="dev", rewrite=" who is\nAda? "), turn(id="c_2", split="dev")]
    source = make_source(tmp_path / "toy", [passage()], dev=turns)
    out = tmp_path / "human.jsonl"
    counts = write_field_rewrites(source, out, name="rewrite", split="dev")
    assert counts == {"num_turns": 2, "num_rewrites": 1}
    assert [(r.qid, r.status, r.text) for r in read_rewrites(out)] == [
        ("c%201", "ok", "who is Ada?"),
        ("c_2", "failed", None),
    ]
    with pytest.raises(DataError, match=r'no turn has a text in field "other"'):
        write_field_rewrites(source, out, name="other", split="dev")
    with pytest.raises(DataError, match=r'dev\.jsonl\.gz:1: field "turn" must be str'):
        write_field_rewrites(source, out, name="turn", split="dev")
    with pytest.raises(MissingFileError, match=r"train\.jsonl missing"):
        write_field_rewrites(source, out, name="rewrite", split="train")
    with pytest.raises(ConfigError, match="unknown split 'dve'"):
        write_field_rewrites(source, out, name="rewrite", split="dve")


def test_ids_with_white_space_are_encoded_everywhere(tmp_path: Path) -> None:
    source = make_source(
        tmp_path / "toy",
        [passage(id="My page 100%#1"), passage(id="50%")],
        train=[turn(id="c 1", conv="what is it", gold=["My page 100%#1", "50%"])],
    )
    counts = convert_pooled(source, tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    ids = [p.doc_id for p in iter_passages(dataset.corpus_path)]
    assert ids == ["My%20page%20100%25#1", "50%"]
    assert set(dataset.qrels["c%201"]) == set(ids)
    assert dataset.turns()[0].conv_id == "what%20is%20it"
    assert counts["encoded_ids"] == 3


@pytest.mark.parametrize(
    ("history", "repaired", "repair"),
    [
        (said("u:a", "a:b"), said("u:a", "a:b"), None),
        (said("u:a", "a:b", "a:c"), said("u:a", "a:b c"), "joined_messages"),
        (said("u:a", "u:", "a:c"), said("u:a", "a:c"), "joined_messages"),
        (said("u:a"), said("u:a", "a:"), "added_agent_messages"),
        (said("u:a", "a:b", "u:c"), said("u:a", "a:b", "u:c", "a:"), "added_agent_messages"),
        (said("a:b"), said("u:", "a:b"), "added_user_messages"),
    ],
)
def test_odd_histories_are_repaired_and_counted(
    tmp_path: Path,
    history: list[dict[str, str]],
    repaired: list[dict[str, str]],
    repair: str | None,
) -> None:
    source = make_source(tmp_path / "toy", [passage()], train=[turn(history=history)])
    counts = convert_pooled(source, tmp_path / "out")
    [loaded] = load_dataset(tmp_path / "out").turns()
    assert loaded.history == tuple(
        Message(role="user" if m["role"] == "user" else "agent", text=m["text"]) for m in repaired
    )
    repairs = ("joined_messages", "added_agent_messages", "added_user_messages")
    assert {name: counts[name] for name in repairs} == {
        name: int(name == repair) for name in repairs
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"id": ""}, "an id is empty"),
        ({"id": 7.5}, 'field "id" must be a text or a whole number, found a decimal'),
        ({"question": " "}, 'field "question" is empty'),
        ({"question": None}, 'field "question" must be str'),
        ({"turn": "1"}, 'field "turn" must be int'),
        ({"turn": True}, 'field "turn" must be int'),
        ({"history": "x"}, 'field "history" must be list'),
        ({"history": [{"role": "system", "text": "x"}]}, r"history\[0\] must have role"),
        ({"history": ["x"]}, r"history\[0\] must have role"),
        ({"history": [{"role": "user"}]}, r'history\[0\]: field "text" is missing'),
        ({"gold": []}, 'field "gold" is empty'),
        ({"gold": [True]}, 'field "gold" must hold passage ids'),
        ({"gold": [3]}, r"gold passage '3' is not in corpus\.jsonl\.gz"),
        ({"gold": ["d9"]}, r"gold passage 'd9' is not in corpus\.jsonl\.gz"),
    ],
)
def test_a_bad_turn_is_named_and_nothing_is_written(
    tmp_path: Path, changes: Record, sentence: str
) -> None:
    source = make_source(tmp_path / "toy", [passage()], train=[turn(id="ok"), turn(**changes)])
    with pytest.raises(DataError, match=rf"train\.jsonl\.gz:2: .*{sentence}"):
        convert_pooled(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_single_questions_are_refused(tmp_path: Path) -> None:
    question = {"id": "q", "split": "train", "question": "who?", "answers": [], "gold": ["d1"]}
    source = make_source(tmp_path / "toy", [passage()], train=[question])
    with pytest.raises(DataError, match="a single question, not a turn of a conversation"):
        convert_pooled(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("corpus", "train", "sentence"),
    [
        ([], [turn()], r"corpus\.jsonl\.gz: the corpus is empty"),
        ([passage(), passage()], [turn()], r"corpus\.jsonl\.gz:2: doc_id 'd1' occurs twice"),
        ([passage(id="a b"), passage(id="a%20b")], [turn()], "'a%20b' occurs twice"),
        ([passage(text=None)], [turn()], 'field "text" must be str'),
        ([passage()], [turn(), turn()], r"train\.jsonl\.gz:2: id 'c_1' occurs twice"),
        ([passage()], [], r"no turns in train\.jsonl\.gz"),
    ],
)
def test_bad_sources_are_named(
    tmp_path: Path, corpus: list[Record], train: list[Record], sentence: str
) -> None:
    source = make_source(tmp_path / "toy", corpus, train=train)
    with pytest.raises(DataError, match=sentence):
        convert_pooled(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such folder"):
        convert_pooled(tmp_path / "nowhere", tmp_path / "out")
    source = make_source(tmp_path / "toy", [passage()])
    with pytest.raises(MissingFileError, match=r"dev\.jsonl or test\.jsonl missing"):
        convert_pooled(source, tmp_path / "out")
    (source / "corpus.jsonl.gz").rename(source / "train.jsonl.gz")
    with pytest.raises(MissingFileError, match=r"corpus\.jsonl missing"):
        convert_pooled(source, tmp_path / "out")


def test_the_source_is_never_its_own_output(tmp_path: Path) -> None:
    source = make_source(tmp_path / "toy", [passage()], train=[turn()])
    with pytest.raises(DataError, match="is the source itself"):
        convert_pooled(source, tmp_path / "x" / ".." / "toy")
