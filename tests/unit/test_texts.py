"""Text that comes in: byte order marks, halves of surrogate pairs, and JSON that Python's parser
takes or is overrun by. Every reader of the project goes through `convsearch.texts`."""

import codecs
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from convsearch.data.cast_topics import read_topics
from convsearch.data.dataset import load_dataset
from convsearch.data.json_array import read_json_array
from convsearch.data.segments import read_segments
from convsearch.data.wiki18 import read_wiki18
from convsearch.errors import DataError
from convsearch.files import read_qrels, read_rewrites, read_run, read_turns
from convsearch.listening import read_api_key
from convsearch.passages import iter_passages
from convsearch.prompts.template import read_template
from convsearch.texts import parse_json, read_json, read_jsonl, read_lines

BOM = codecs.BOM_UTF8
TURN = '{"qid":"q1","conv_id":"c","turn":1,"split":"test","question":"%s","history":[]}\n'
PASSAGE = '{"doc_id":"p1","title":"","text":"%s"}\n'
REWRITE = (
    '{"qid":"q1","status":"ok","text":"%s","response":"r","seed":1,"candidate":0,"num_tokens":1}\n'
)
WIKI = '{"id":"1","contents":"t\\n%s"}\n'
READERS: list[tuple[str, Callable[[Path], object], str]] = [
    ("turns.jsonl", read_turns, TURN % "who"),
    ("corpus.jsonl", lambda path: list(iter_passages(path)), PASSAGE % "text"),
    ("rewrites.jsonl", read_rewrites, REWRITE % "query"),
    ("qrels.trec", read_qrels, "q1 0 d1 1\n"),
    ("run.trec", read_run, "q1 Q0 d1 1 2.5 tag\n"),
    ("prompt.txt", lambda path: read_template(path).text, "Rewrite {question}"),
    ("array.json", lambda path: [record for _, record in read_json_array(path)], '[{"a": 1}]'),
    ("segments.tsv", lambda path: [*read_segments(path, "none")], "id\ttext\ttitle\n1\tx\ty\n"),
    ("segments_csv.tsv", lambda path: [*read_segments(path, "csv")], "id\ttext\ttitle\n1\tx\ty\n"),
]
JSON_READERS: list[tuple[str, Callable[[Path], object], str]] = [
    ("turns.jsonl", read_turns, TURN),
    ("corpus.jsonl", lambda path: list(iter_passages(path)), PASSAGE),
    ("rewrites.jsonl", read_rewrites, REWRITE),
    ("wiki.jsonl.gz", lambda path: list(read_wiki18(path)), WIKI),
    ("array.json", lambda path: [record for _, record in read_json_array(path)], '[{"a":"%s"}]'),
]
BAD_VALUES = {
    "digits": "1" * 5000,
    "nesting": "[" * 100_000 + "]" * 100_000,
    "open nesting": '{"a":' * 100_000,
    "nan": "NaN",
    "infinity": "-Infinity",
    "two values": '{"a": 1, "a": 2}',
}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


# --- byte order marks ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(("name", "read", "content"), READERS)
def test_a_byte_order_mark_is_dropped(
    tmp_path: Path, name: str, read: Callable[[Path], object], content: str, ending: str
) -> None:
    if ending and not name.endswith((".jsonl", ".trec")):
        pytest.skip("is never compressed")
    name = f"{name}{ending}"
    without = write(tmp_path / f"without-{name}", content.encode())
    with_mark = write(tmp_path / f"with-{name}", BOM + content.encode())
    assert repr(read(with_mark)).replace("with-", "without-") == repr(read(without))


def test_files_that_were_joined_have_marks_in_the_middle(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels.trec", BOM + b"q1 0 d1 1\r\n" + BOM + b"q2 0 d1 2")
    assert read_qrels(qrels) == {"q1": {"d1": 1}, "q2": {"d1": 2}}
    assert [line for _, line in read_lines(write(tmp_path / "empty.tsv", BOM + b"\n" + BOM))] == []


def test_a_mark_inside_a_line_stays(tmp_path: Path) -> None:
    turns = write(tmp_path / "turns.jsonl", (TURN % "a\ufeffb").encode())
    assert read_turns(turns)[0].question == "a\ufeffb"


def test_a_key_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    assert read_api_key(write(tmp_path / "key", BOM + b"secret\n"), "KEY") == "secret"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", [True, False])
def test_utf_16_is_named(tmp_path: Path, encoding: str, mark: bool) -> None:
    text = ("\ufeff" if mark else "") + "q1 0 d1 1\n"
    path = write(tmp_path / "qrels.trec", text.encode(encoding))
    with pytest.raises(DataError, match=r"UTF-16.*save it in UTF-8"):
        read_qrels(path)


def test_a_gzip_file_without_its_name_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "qrels.trec", gzip.compress(b"q1 0 d1 1\n"))
    with pytest.raises(DataError, match=r"gzip file; give it a name that ends in \.gz"):
        read_qrels(path)


# --- bytes that are no text ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"q2 0 d\xff 1", r"qrels\.trec:40002: not text in UTF-8 \(byte 0xff after 'q2 0 d'\)"),
        (b"q2 0 d\xed\xa0\xbc 1", r"qrels\.trec:40002: not text in UTF-8 \(byte 0xed"),
        ("q2 0 dé 1".encode("latin-1"), r"qrels\.trec:40002: not text in UTF-8 \(byte 0xe9"),
        (b"q2 0 d\0 1", r"qrels\.trec:40002: holds a zero byte"),
    ],
)
def test_the_line_of_a_bad_byte_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    many = b"".join(b"q%d 0 d 1\n" % i for i in range(10, 40_011))
    path = write(tmp_path / "qrels.trec", many + line + b"\n" + many)
    with pytest.raises(DataError, match=said):
        read_qrels(path)


# --- halves of surrogate pairs -------------------------------------------------------------------


@pytest.mark.parametrize(("name", "read", "line"), JSON_READERS)
def test_half_a_surrogate_pair_becomes_a_question_mark(
    tmp_path: Path, name: str, read: Callable[[Path], object], line: str
) -> None:
    spelt, meant = line % r"party \ud83c, \udfff \ud83d\ude00", line % "party ?, ? \U0001f600"
    half = read(write(tmp_path / f"a-{name}", spelt.encode()))
    mended = read(write(tmp_path / f"b-{name}", meant.encode()))
    assert repr(half).replace("a-", "b-") == repr(mended)


def test_keys_and_nested_texts_are_mended_too() -> None:
    record = parse_json(r'{"\ud83c": ["\udc00", {"k\ud83d": "v\ude00"}], "fine": "\u00e9"}', "f:1")
    assert record == {"?": ["?", {"k?": "v?"}], "fine": "é"}
    json.dumps(record, ensure_ascii=False).encode("utf-8")


# --- JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
@pytest.mark.parametrize(("name", "read", "line"), JSON_READERS)
def test_json_that_only_python_takes_or_that_overruns_it_is_refused(
    tmp_path: Path, name: str, read: Callable[[Path], object], line: str, value: str
) -> None:
    ignored = (line % "x").replace("{", f'{{"ignored": {value}, ', 1)
    path = write(tmp_path / name, ignored.encode())
    with pytest.raises(DataError, match=rf"{name}(:1: not valid JSON \(|: damaged)"):
        read(path)


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_whole_files_are_read_by_the_same_rules(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "run.json", f'{{"settings": {value}}}'.encode())
    with pytest.raises(DataError, match=r"run\.json(:1)?: not valid JSON \("):
        read_json(path)
    with pytest.raises(DataError, match=r"run\.json(:1)?: not valid JSON \(.*fetch it again"):
        read_topics(2019, path)


def test_a_key_that_occurs_twice_with_one_value_passes() -> None:
    assert parse_json('{"a": [1], "b": 2, "a": [1]}', "f:1") == {"a": [1], "b": 2}


def test_the_line_of_a_file_that_is_one_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json:3: not valid JSON \(Expecting value\); mend"):
        read_json(write(tmp_path / "a.json", b'{\n"a": 1,\n"b": }'))


def test_trainers_may_log_what_is_no_number(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", b'{"step": 1, "data": {"loss": NaN}}\n')
    assert len([*read_jsonl(path, allow_nan=True)]) == 1


def test_a_passport_with_a_mark_names_the_data_set(tmp_path: Path) -> None:
    write(tmp_path / "turns.jsonl", (TURN % "who").encode())
    write(tmp_path / "corpus.jsonl", (PASSAGE % "x").encode())
    write(tmp_path / "qrels.trec", b"q1 0 p1 1\n")
    write(tmp_path / "run.json", BOM + b'{"settings": {"name": "mine"}}')
    assert load_dataset(tmp_path).name == "mine"


@pytest.mark.parametrize("value", [2**63, -(2**64), 10**20])
def test_numbers_that_no_file_of_ours_holds_are_refused(tmp_path: Path, value: int) -> None:
    line = (TURN % "who").replace('"turn":1', f'"turn":{value}')
    with pytest.raises(DataError, match=r'turns\.jsonl:1: field "turn" must fit into 64 bits'):
        read_turns(write(tmp_path / "turns.jsonl", line.encode()))
