"""The readers and writers of `convsearch.files`: round trips, and a sentence for every bad line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from convsearch import passages
from convsearch.errors import DataError, MissingFileError
from convsearch.files import (
    atomic_write,
    gold_ids,
    read_qrels,
    read_rewrites,
    read_run,
    read_turn_info,
    read_turns,
    write_jsonl,
    write_qrels,
    write_rewrites,
    write_run,
    write_turn_info,
    write_turns,
)
from convsearch.passages import iter_passages, write_passages
from convsearch.types import Hit, Message, Passage, Rewrite, Turn

TURN = {
    "qid": "a_1",
    "conv_id": "a",
    "turn": 1,
    "split": "dev",
    "question": "who?",
    "history": [{"role": "user", "text": "hi"}, {"role": "agent", "text": ""}],
}
PASSAGE = {"doc_id": "d1", "title": "", "text": "x"}
REWRITE = {
    "qid": "a_1",
    "status": "ok",
    "text": "query",
    "response": "<think>t</think>\n<rewrite>query</rewrite>",
    "seed": 3,
    "candidate": 0,
    "num_tokens": 9,
    "error": None,
}
Reader = Callable[[Path], object]
READERS: list[tuple[Reader, str]] = [
    (read_turns, "turns.jsonl"),
    (lambda path: list(iter_passages(path)), "corpus.jsonl"),
    (read_rewrites, "rewrites.jsonl"),
    (read_qrels, "qrels.trec"),
    (read_run, "run.trec"),
]


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_what_is_written_is_read(tmp_path: Path, ending: str) -> None:
    turns = [
        Turn(qid="ä_1", conv_id="ä", turn=1, split="dev", question="wer\u2028?"),
        Turn(
            qid="ä_2",
            conv_id="ä",
            turn=2,
            split="test",
            question="wo?",
            history=(Message(role="user", text="wer?"), Message(role="agent", text="")),
        ),
    ]
    passages = [Passage(doc_id="d1", title="T", text='a "b"\nc')]
    rewrites = [
        Rewrite(qid="a", status="ok", text="q", response="r", seed=1, candidate=1, num_tokens=4),
        Rewrite(qid="a", status="malformed", text=None, response="?", seed=2),
        Rewrite(qid="b", status="failed", text=None, response="", seed=3, error="timeout"),
    ]
    qrels = {"a": {"d1": 1, "d2": 0}, "b": {"d1": 2}}
    run = {"a": [Hit(doc_id="d2", score=2.5), Hit(doc_id="d1", score=-1.0)]}
    names = ("turns.jsonl", "corpus.jsonl", "rewrites.jsonl", "qrels.trec", "run.trec")
    paths = [tmp_path / f"{name}{ending}" for name in names]
    assert write_turns(paths[0], turns) == 2
    assert write_passages(paths[1], passages) == 1
    assert write_rewrites(paths[2], rewrites) == 3
    write_qrels(paths[3], qrels)
    write_run(paths[4], run, tag="toy")
    assert read_turns(paths[0]) == turns
    assert read_turns(paths[0], split="test") == turns[1:]
    assert list(iter_passages(paths[1])) == passages
    assert read_rewrites(paths[2]) == rewrites
    assert read_qrels(paths[3]) == qrels
    assert read_run(paths[4]) == run
    assert all((path.read_bytes()[:2] == b"\x1f\x8b") == bool(ending) for path in paths)


def test_compressed_files_repeat_to_the_byte(tmp_path: Path) -> None:
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_jsonl(tmp_path / name, [{"a": 1}])
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


def test_a_run_is_read_in_the_order_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q Q0 first 2 9.0 t\n\nq Q0 second - 8.0 t\n")
    assert [hit.doc_id for hit in read_run(path)["q"]] == ["first", "second"]


# --- atomic writes -------------------------------------------------------------------------------


def write_and_fail(path: Path) -> None:
    with atomic_write(path) as out:
        out.write("half")
        raise RuntimeError("stop")


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_error_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail(path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out.jsonl", "old")]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.jsonl"
    with atomic_write(path) as out:
        out.write("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert list(path.parent.iterdir()) == [path]


# --- bad files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("read", "name"), READERS)
def test_a_missing_file_is_named(tmp_path: Path, read: Reader, name: str) -> None:
    with pytest.raises(MissingFileError, match=rf"{name}: no such file; check the path"):
        read(tmp_path / name)
    with pytest.raises(MissingFileError, match="no such file"):
        read(tmp_path)


@pytest.mark.parametrize(("read", "name"), READERS[:3])
@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ('{"qid": ', "not valid JSON"),
        ("qid a", "not valid JSON"),
        ("[1]", "expected a JSON object, found list"),
        ("null", "expected a JSON object, found NoneType"),
    ],
)
def test_a_malformed_line_is_named(
    tmp_path: Path, read: Reader, name: str, bad: str, sentence: str
) -> None:
    good = {"turns.jsonl": TURN, "corpus.jsonl": PASSAGE, "rewrites.jsonl": REWRITE}[name]
    path = tmp_path / name
    path.write_text(f"{json.dumps(good)}\n\n{bad}\n")
    with pytest.raises(DataError, match=rf"{name}:3: {sentence}"):
        read(path)


@pytest.mark.parametrize(("read", "name"), READERS)
def test_bytes_that_are_not_text_are_named(tmp_path: Path, read: Reader, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=rf"{name}: not text in UTF-8"):
        read(path)


@pytest.mark.parametrize(("read", "name"), READERS)
@pytest.mark.parametrize("damage", ["cut", "plain", "bent"])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, read: Reader, name: str, damage: str) -> None:
    whole = gzip.compress(b" \n" * 5000)
    bent = bytearray(whole)
    bent[12] ^= 0xFF
    path = tmp_path / f"{name}.gz"
    path.write_bytes({"cut": whole[:-9], "plain": b"{}\n", "bent": bytes(bent)}[damage])
    with pytest.raises(DataError, match=rf"{name}\.gz: not a whole gzip file"):
        read(path)


@pytest.mark.parametrize("missing", sorted(TURN))
def test_a_missing_field_of_a_turn_is_named(tmp_path: Path, missing: str) -> None:
    record = {name: value for name, value in TURN.items() if name != missing}
    with pytest.raises(DataError, match=rf'turns\.jsonl:1: field "{missing}" is missing'):
        read_turns(lines(tmp_path / "turns.jsonl", record))


USER = {"role": "user", "text": "u"}
AGENT = {"role": "agent", "text": "a"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"question": ""}, 'field "question" is empty'),
        ({"question": " \n"}, 'field "question" is empty'),
        ({"question": ["who?"]}, 'field "question" must be str, found list'),
        ({"turn": "1"}, 'field "turn" must be int, found str'),
        ({"turn": True}, 'field "turn" must be int, found bool'),
        ({"qid": ""}, 'field "qid" must be a non-empty id without white space'),
        ({"qid": "a 1"}, 'field "qid" must be a non-empty id without white space'),
        ({"qid": 1}, 'field "qid" must be str, found int'),
        ({"conv_id": "a\tb"}, 'field "conv_id" must be a non-empty id without white space'),
        ({"split": None}, 'field "split" must be str, found NoneType'),
        ({"history": {}}, 'field "history" must be list, found dict'),
        ({"history": [USER]}, "history has an odd number of messages"),
        ({"history": [USER, AGENT, USER]}, "history has an odd number of messages"),
        ({"history": [AGENT, USER]}, r'history\[0\] must have role "user"'),
        ({"history": [USER, USER]}, r'history\[1\] must have role "agent"'),
        ({"history": ["u", "a"]}, r'history\[0\] must have role "user"'),
        ({"history": [USER, {"role": "agent"}]}, r'history\[1\]: field "text" is missing'),
        ({"history": [USER, {**AGENT, "text": 3}]}, r'history\[1\]: field "text" must be str'),
    ],
)
def test_a_bad_turn_is_named(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    path = lines(tmp_path / "turns.jsonl", {**TURN, "qid": "ok"}, {**TURN, **changes})
    with pytest.raises(DataError, match=rf"turns\.jsonl:2: {sentence}"):
        read_turns(path)


def test_turn_ids_must_be_unique(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"turns\.jsonl:2: qid 'a_1' occurs twice"):
        read_turns(lines(tmp_path / "turns.jsonl", TURN, TURN))


def test_no_turns_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"turns\.jsonl: no turns"):
        read_turns(lines(tmp_path / "turns.jsonl"))
    with pytest.raises(DataError, match=r"no turns of split 'test'; splits here: \['dev'\]"):
        read_turns(lines(tmp_path / "turns.jsonl", TURN), split="test")


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([], r"corpus\.jsonl: the corpus is empty"),
        ([PASSAGE, PASSAGE], r"corpus\.jsonl:2: doc_id 'd1' occurs twice"),
        ([{**PASSAGE, "doc_id": "a b"}], r"corpus\.jsonl:1: 'a b' is not an id without white"),
        ([{**PASSAGE, "title": None}], r"corpus\.jsonl:1: field \"title\" must be str"),
        ([{"doc_id": "d1", "title": ""}], r"corpus\.jsonl:1: field \"text\" is missing"),
    ],
)
def test_a_bad_corpus_is_named(tmp_path: Path, records: list[object], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        list(iter_passages(lines(tmp_path / "corpus.jsonl", *records)))


def corpus_of(path: Path, *doc_ids: str) -> Path:
    return lines(path, *({**PASSAGE, "doc_id": doc_id} for doc_id in doc_ids))


def test_ids_whose_hashes_are_equal_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "hash", lambda doc_id: len(doc_id), raising=False)
    monkeypatch.setattr(passages, "_SUSPECTS", 1)
    different = corpus_of(tmp_path / "corpus.jsonl", "a", "b", "cc", "dd", "c")
    assert [passage.doc_id for passage in iter_passages(different)] == ["a", "b", "cc", "dd", "c"]
    repeated = corpus_of(tmp_path / "repeated.jsonl", "a", "b", "cc", "dd", "c", "dd")
    with pytest.raises(DataError, match=r"repeated\.jsonl:6: doc_id 'dd' .* first in line 4;"):
        list(iter_passages(repeated))


def test_a_corpus_that_is_there_twice_is_refused_at_its_first_repeat(tmp_path: Path) -> None:
    ids = [f"d{number}" for number in range(300)]
    plain = corpus_of(tmp_path / "corpus.jsonl", *ids, *ids)
    path = plain.with_suffix(".jsonl.gz")
    path.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(DataError, match=r"corpus\.jsonl\.gz:301: doc_id 'd0' occurs twice"):
        list(iter_passages(path))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("q 0 d", r":2: expected 4 columns \(qid 0 doc_id relevance\), found 3"),
        ("q 0 d 1 x", ":2: expected 4 columns"),
        ("q 0 d yes", ":2: relevance must be a whole number, found 'yes'"),
        ("q 0 d 0.5", ":2: relevance must be a whole number, found '0.5'; grades are whole"),
    ],
)
def test_a_bad_judgement_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "qrels.trec"
    path.write_text(f"q 0 ok 1\n{line}\n")
    with pytest.raises(DataError, match=rf"qrels\.trec{sentence}"):
        read_qrels(path)


def test_no_judgements_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "qrels.trec").write_text("\n")
    with pytest.raises(DataError, match=r"qrels\.trec: no relevance judgements"):
        read_qrels(tmp_path / "qrels.trec")


def test_an_unknown_query_is_named() -> None:
    assert gold_ids({"q": {"d1": 1, "d2": 0, "d3": 2}}, "q") == ["d1", "d3"]
    with pytest.raises(DataError, match="qid 'x' has no line in the qrels"):
        gold_ids({"q": {"d1": 1}}, "x")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("q Q0 d 1 2.0", ":2: expected 6 columns"),
        ("q Q0 d 1 high t", ":2: score must be a number, found 'high'"),
    ],
)
def test_a_bad_run_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "run.trec"
    path.write_text(f"q Q0 ok 1 3.0 t\n{line}\n")
    with pytest.raises(DataError, match=rf"run\.trec{sentence}"):
        read_run(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"status": "good"}, 'field "status" must be one of ok, malformed, failed'),
        ({"status": None}, 'field "status" must be str'),
        ({"text": None}, 'field "text" must be a string exactly where status is "ok"'),
        ({"status": "failed"}, 'field "text" must be a string exactly where status is "ok"'),
        ({"seed": 1.5}, 'field "seed" must be int, found float'),
        ({"response": None}, 'field "response" must be str'),
        ({"qid": "a b"}, 'field "qid" must be a non-empty id'),
    ],
)
def test_a_bad_rewrite_is_named(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(DataError, match=rf"rewrites\.jsonl:1: {sentence}"):
        read_rewrites(lines(tmp_path / "rewrites.jsonl", {**REWRITE, **changes}))


def test_a_candidate_occurs_once(tmp_path: Path) -> None:
    second = {**REWRITE, "candidate": 1}
    path = lines(tmp_path / "rewrites.jsonl", REWRITE, second, second)
    with pytest.raises(DataError, match=r"rewrites\.jsonl:3: qid 'a_1' candidate 1 occurs twice"):
        read_rewrites(path)


def test_a_very_long_rewrite_survives(tmp_path: Path) -> None:
    long = Rewrite(qid="a", status="ok", text="x" * 100_000, response="y" * 100_000, seed=1)
    write_rewrites(tmp_path / "rewrites.jsonl", [long])
    assert read_rewrites(tmp_path / "rewrites.jsonl") == [long]


def test_turn_info_round_trip_and_bad_lines(tmp_path: Path):
    path = tmp_path / "turn_info.jsonl"
    switches = {"q1": None, "q2": True, "q3": False}
    assert write_turn_info(path, switches) == 3
    assert read_turn_info(path) == switches
    for line, said in (
        ('{"qid": "q1", "topic_switch": true}', "occurs twice"),
        ('{"qid": "q4"}', "must be true, false or null"),
        ('{"qid": "q4", "topic_switch": 1}', "must be true, false or null"),
        ('{"topic_switch": null}', '"qid" is missing'),
    ):
        path.write_text(f'{{"qid": "q1", "topic_switch": null}}\n{line}\n')
        with pytest.raises(DataError, match=f"turn_info.jsonl:2: .*{said}"):
            read_turn_info(path)
