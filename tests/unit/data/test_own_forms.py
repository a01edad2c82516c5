"""Files of other programs: usual forms are read, others named beside the wanted ones."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from convsearch.data.conversations import Asked, read_conversations
from convsearch.data.dataset import load_dataset
from convsearch.data.own import convert_own
from convsearch.data.pooled import convert_pooled
from convsearch.data.text_look import look_line
from convsearch.errors import DataError, MissingFileError
from convsearch.passages import iter_passages

Rows = list[list[str]]
TWO = [("1", "Mill", "Built in 1911."), ("2", "Ferry", 'Called "Anna", it takes an hour.')]


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def table(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, delimiter=delimiter).writerows(rows)
    return path


def asked(path: Path) -> list[Asked]:
    return read_conversations(path, Counter())


# --- passages ------------------------------------------------------------------------------------


def as_records(kind: str) -> list[dict[str, object]]:
    made = {
        "ours": lambda i, title, text: {"doc_id": i, "title": title, "text": text},
        "numbers": lambda i, title, text: {"id": int(i), "title": title, "text": text},
        "decimals": lambda i, title, text: {"id": float(i), "title": title, "text": text},
        "pyserini": lambda i, title, text: {"id": i, "contents": f'"{title}"\n{text}'},
        "flashrag": lambda i, title, text: {"id": int(i), "contents": f"{title}\n{text}"},
        "beir": lambda i, title, text: {"_id": i, "title": title, "text": text, "metadata": {}},
    }[kind]
    return [made(*passage) for passage in TWO]


@pytest.mark.parametrize("kind", ["ours", "numbers", "decimals", "pyserini", "flashrag", "beir"])
def test_passages_in_json_lines_of_other_programs(tmp_path: Path, kind: str) -> None:
    path = lines(tmp_path / "corpus.jsonl", *as_records(kind))
    assert [(p.doc_id, p.title, p.text) for p in iter_passages(path)] == TWO


@pytest.mark.parametrize("name", ["kb.csv", "kb.tsv", "kb.CSV"])
@pytest.mark.parametrize("header", [["id", "text", "title"], ["title", "_id", "contents", "url"]])
def test_passages_in_tables_with_a_header(tmp_path: Path, name: str, header: list[str]) -> None:
    cells = {"_id": 0, "id": 0, "title": 1, "text": 2, "contents": 2}
    rows = [[passage[cells[h]] if h in cells else "x" for h in header] for passage in TWO]
    path = table(tmp_path / name, [header, *rows], "\t" if name.endswith("tsv") else ",")
    if "contents" in header:
        assert [p.text for p in iter_passages(path)] == [text for _, _, text in TWO]
    else:
        assert [(p.doc_id, p.title, p.text) for p in iter_passages(path)] == TWO


def test_excel_parts_by_semicolons_and_dpr_doubles_quotes(tmp_path: Path) -> None:
    header = [["id", "text", "title"]]
    rows = [[i, text, title] for i, title, text in TWO]
    excel = table(tmp_path / "kb.csv", header + rows, ";")
    dpr = table(tmp_path / "psgs_w100.tsv", header + rows, "\t")
    assert '"Called ""Anna""' in dpr.read_text()
    zipped = tmp_path / "again.tsv.gz"
    zipped.write_bytes(gzip.compress(dpr.read_bytes()))
    for path in (excel, dpr, zipped):
        assert [(p.doc_id, p.title, p.text) for p in iter_passages(path)] == TWO


def test_a_field_may_hold_line_ends(tmp_path: Path) -> None:
    path = table(tmp_path / "kb.csv", [["id", "text"], ["1", "two\nlines"], ["2", "x"]])
    assert [p.text for p in iter_passages(path)] == ["two\nlines", "x"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "c.jsonl",
            '{"key": "a", "text": "x"}',
            r'l:1: .*"doc_id" is missing \(found: "key"',
        ),
        (
            "c.jsonl",
            '{"id": "a", "words": "x"}',
            r'"text" is missing \(found: "id", "words"\)',
        ),
        ("c.jsonl", '{"id": true, "text": "x"}', "whole number, found true or false"),
        ("c.jsonl", '{"id": 1.5, "text": "x"}', "whole number, found a decimal"),
        ("c.jsonl", '{"id": "a b", "text": "x"}', "not an id without white space"),
        ("c.jsonl", '{"id": "a", "contents": ["x", "y"]}', "must be str, found list; a passage is"),
        ("c.jsonl", '[{"id": "a", "text": "x"}]', r"JSON array.*jq -c '\.\[\]'"),
        ("c.jsonl", "id,text\n1,x", r"c\.jsonl:1: no JSON object.*name a table \.csv or \.tsv"),
        ("c.csv", "1,x,T\n", r"c\.csv:1: no header that names id and text \(1, x, T\)"),
        ("c.csv", "id,text\n1,x,T\n", r"c\.csv:2: expected 2 columns as in the header, found 3"),
        ("c.csv", 'id,text\n1,"a" b\n', r"c\.csv:2: not valid as csv"),
        ("c.tsv", "id\twords\n1\tx\n", r"c\.tsv:1: no header that names id and text"),
        ("c.tsv", "1\tx\tT\tU\n", r"c\.tsv:1: expected id, text and perhaps a title"),
        ("c.csv", "id,text\n1,x\n1,y\n", r"c\.csv:3: doc_id '1' occurs twice, first in line 2"),
    ],
)
def test_other_passages_are_named(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told):
        list(iter_passages(tmp_path / name))


# --- conversations -------------------------------------------------------------------------------

CHAT = [
    {"role": "system", "content": "You are a bot."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Who built it?"},
    {"role": "user", "content": "The mill?", "relevant": "1"},
    {"role": "assistant", "content": "Ada."},
    {"role": "assistant", "content": "In 1911.", "relevant": [2]},
    {"role": "user", "content": [{"type": "text", "text": "And the ferry?"}], "relevant": ["2"]},
]


def check_chat(found: list[Asked], conv: str) -> None:
    first, second = found
    assert (first.qid, first.question, first.relevant) == (
        f"{conv}_1",
        "Who built it? The mill?",
        ("1", "2"),
    )
    assert [(m.role, m.text) for m in first.history] == [("user", ""), ("agent", "Hello!")]
    assert [m.text for m in second.history][2:] == ["Who built it? The mill?", "Ada. In 1911."]
    assert (second.qid, second.question, second.relevant) == (
        f"{conv}_2",
        "And the ferry?",
        ("2",),
    )


def test_chat_logs_are_joined_and_counted(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    path = lines(tmp_path / "chats.jsonl", {"id": 7, "messages": CHAT})
    check_chat(read_conversations(path, counts), "7")
    assert counts == {"joined_messages": 2, "left_out_messages": 1, "greetings": 1}


def test_chat_logs_by_the_names_of_others(tmp_path: Path) -> None:
    roles = {"user": "human", "assistant": "gpt", "system": "system"}
    told = [
        {"from": roles[str(m["role"])], "value": m["content"], "relevant": m.get("relevant")}
        for m in CHAT
    ]
    check_chat(asked(lines(tmp_path / "a.jsonl", {"conversations": told})), "c1")
    (tmp_path / "b.json").write_text(json.dumps([{"id": "x", "messages": CHAT}], indent=1))
    check_chat(asked(tmp_path / "b.json"), "x")


def test_where_only_the_system_answers_it_is_the_agent(tmp_path: Path) -> None:
    talk = [
        {"speaker": "USER", "text": "a?", "relevant": "1"},
        {"speaker": "SYSTEM", "text": "b"},
        {"speaker": "USER", "text": "c?", "relevant": "1"},
    ]
    found = asked(lines(tmp_path / "a.jsonl", {"id": "m", "turns": talk}))
    assert [m.text for m in found[1].history] == ["a?", "b"]


def test_messages_in_a_table(tmp_path: Path) -> None:
    rows = [
        [
            "7",
            m["role"],
            m["content"] if isinstance(m["content"], str) else "And the ferry?",
            "; ".join(str(i) for i in m.get("relevant", "")),
            "test",
        ]
        for m in CHAT
    ]
    rows.insert(3, ["8", "customer", "Other?", "2", "train"])
    path = table(
        tmp_path / "c.csv", [["Conversation ID", "Speaker", "Text", "Relevant", "Split"], *rows]
    )
    found = asked(path)
    check_chat([each for each in found if each.conv_id == "7"], "7")
    assert {each.conv_id: each.split for each in found} == {"7": "test", "8": "train"}


def test_exchanges_in_a_table(tmp_path: Path) -> None:
    rows = [["conv", "question", "answer", "gold"], ["a", "x?", "y", "1,2"], ["a", "z?", "", ""]]
    first, second = asked(table(tmp_path / "c.tsv", rows, "\t"))
    assert first.relevant == ("1", "2")
    assert second.relevant == ()
    assert [m.text for m in second.history] == ["x?", "y"]


def test_turns_of_the_pooled_format(tmp_path: Path) -> None:
    history = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
    turn = {"id": 3, "conv": 9, "turn": 2, "question": "c?", "history": history, "gold": [1]}
    [found] = asked(lines(tmp_path / "train.jsonl", turn))
    assert (found.qid, found.conv_id, found.split) == ("3", "9", None)
    assert [(m.role, m.text) for m in found.history] == [("user", "a?"), ("agent", "b")]
    assert found.relevant == ("1",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            '{"id": "a", "talk": []}',
            r'"turns" is missing \(found: "id", "talk"\); a con',
        ),
        (
            '{"id": "a", "turns": [{"ask": "x"}]}',
            r'turn 1: .*"question" is missing \(found: "ask"\)',
        ),
        (
            '{"id": "a", "messages": [{"role": "boss", "content": "x"}]}',
            "1: role 'boss' is",
        ),
        ('{"id": "a", "messages": [{"role": "user"}]}', r'message 1: field "content" is missing'),
        ('{"id": "a", "messages": [{"role": "user", "content": 3}]}', "must be a text, found int"),
        (
            '{"id": "a", "turns": [{"question": "x", "relevant": {"1": 2}}]}',
            "must hold passage ids",
        ),
        ('{"id": null, "turns": [{"question": "x"}]}', "whole number, found null"),
        ("id,text\n", r"c\.jsonl:1: no JSON object.*name a table \.csv"),
    ],
)
def test_other_conversations_are_named(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(DataError, match=told):
        asked(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [["id", "words"], ["a", "x"]],
            r"c\.csv:1: the header names id, words; wanted",
        ),
        ([["id", "question"], ["a"]], r"c\.csv:2: expected 2 columns"),
        ([["id", "question"], ["a", ""]], r"c\.csv:2: the question is empty"),
        ([["id", "question"], ["", "x"]], "not an id"),
        ([["id", "question", "split"], ["a", "x", "dev"], ["a", "y", "test"]], "split 'test', but"),
        ([["id", "role", "text"], ["a", "boss", "x"]], r"c\.csv:2: role 'boss'"),
    ],
)
def test_other_tables_are_named(tmp_path: Path, rows: Rows, told: str) -> None:
    with pytest.raises(DataError, match=told):
        asked(table(tmp_path / "c.csv", rows))


# --- folders -------------------------------------------------------------------------------------


def test_a_beir_folder_becomes_single_questions(tmp_path: Path) -> None:
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    lines(beir / "corpus.jsonl", *as_records("beir"))
    lines(beir / "queries.jsonl", *({"_id": i, "text": f"{i}?"} for i in ("q1", "q2", "q3")))
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t2\nq1\t2\t0\n")
    (beir / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\t2\t1\n")
    counts = convert_own(beir, beir, tmp_path / "out")
    data = load_dataset(tmp_path / "out")
    assert {t.qid: t.split for t in data.all_turns} == {"q1": "test", "q2": "train"}
    assert data.qrels == {"q1": {"1": 1}, "q2": {"2": 1}}
    assert counts["turns_without_gold"] == 1
    (beir / "qrels" / "test.tsv").unlink()
    (beir / "qrels" / "train.tsv").unlink()
    with pytest.raises(MissingFileError, match=r"no judgements beside them; wanted: .*test\.tsv"):
        convert_own(beir, beir, tmp_path / "again")


def test_own_reads_a_pooled_folder_and_pooled_other_corpora(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    lines(pool / "corpus.jsonl", *as_records("pyserini"))
    for split in ("train", "test"):
        turn = {"id": f"{split}_1", "conv": split, "turn": 1, "question": "c?", "history": []}
        lines(pool / f"{split}.jsonl", {**turn, "split": split, "gold": [1]})
    convert_own(pool, pool, tmp_path / "own")
    convert_pooled(pool, tmp_path / "pooled")
    for name in ("turns.jsonl", "corpus.jsonl", "qrels.trec"):
        assert (tmp_path / "own" / name).read_text() == (tmp_path / "pooled" / name).read_text()


def test_html_repeated_and_empty_texts_are_told(tmp_path: Path) -> None:
    texts = ["<div class='kb'>x</div>", "a&nbsp;b", "1 < 2 and 3 > 2", "same", " same ", "", "<xs>"]
    corpus = lines(tmp_path / "p.jsonl", *({"id": i, "text": text} for i, text in enumerate(texts)))
    talks = lines(tmp_path / "c.jsonl", {"id": "a", "turns": [{"question": "x?", "relevant": "0"}]})
    counts = convert_own(talks, corpus, tmp_path / "out")
    assert look_line(counts).startswith(
        "texts: 2 passages look like HTML, 1 text occurs twice or more, 1 empty"
    )
    assert look_line({"num_turns": 3}) == ""
