"""`convsearch compare`: what it prints and writes, and what it refuses."""

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
from evaluation_folders import write_folder

from convsearch.cli.main import main
from convsearch.files import write_turns
from convsearch.passport import sha256_of
from convsearch.types import Turn

RAW = {"a_1": 1, "a_2": None, "b_1": 4, "b_2": 2, "c_1": None}
OURS = {"a_1": 1, "a_2": 1, "b_1": 2, "b_2": 4, "c_1": 1}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    turns = [
        Turn(qid=q, conv_id=q[0], turn=int(q[-1]), split="test", question=f"what of {q} | x_y?")
        for q in RAW
    ]
    write_turns(tmp_path / "turns.jsonl", turns)
    inputs = {str(tmp_path / "turns.jsonl"): sha256_of(tmp_path / "turns.jsonl")}
    for name, ranks in (("raw", RAW), ("ours", OURS), ("ours2", {**OURS, "b_2": 1})):
        write_folder(tmp_path / name, ranks, dataset="topiocqa", inputs=inputs)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["convsearch", "compare", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_text_has_means_tests_and_examples(folders: Path, monkeypatch, capsys):
    assert run(monkeypatch, folders / "raw", folders / "ours") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^raw +35\.00 ", shown, re.M)
    assert re.search(r"^ours +75\.00 ", shown, re.M)
    assert re.search(r"^ours - raw +MRR@100 +\+40\.00 .* 0\.5000 +1\.0000 +3 +1 +1$", shown, re.M)
    assert "all 8 sign flips" in shown
    assert "* +1.000 a_2: what of a_2 | x_y?" in shown
    assert "* ours, rank 1: query of ours for a_2" in shown
    assert "* raw, rank not found: query of raw for a_2" in shown


def test_questions_are_left_out_where_the_turns_have_changed(folders: Path, monkeypatch, capsys):
    (folders / "turns.jsonl").write_text("")
    assert run(monkeypatch, folders / "raw", folders / "ours") == 0
    assert "question not at hand; name --dataset" in capsys.readouterr().out


def test_seeds_show_their_spread(folders: Path, monkeypatch, capsys):
    both = f"ours={folders / 'ours'},{folders / 'ours2'}"
    assert run(monkeypatch, folders / "raw", both, "--metric", "mrr") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ours \(2 seeds\) +82\.50 ± 10\.61", shown, re.M)
    assert "* ours, rank 4, 1: query of ours for b_2" in shown
    assert "standard deviation over seeds" in shown


def test_markdown_and_latex_escape_what_they_hold(folders: Path, monkeypatch, capsys):
    names = [f"a_b={folders / 'raw'}", f"50%={folders / 'ours'}"]
    assert run(monkeypatch, *names, "--format", "markdown") == 0
    shown = capsys.readouterr().out
    assert "| a\\_b | 35.00 |" in shown
    assert r"what of a\_2 \| x\_y?" in shown
    assert len({line.count("|") for line in shown.splitlines() if line.startswith("| a")}) == 1
    assert run(monkeypatch, *names, "--format", "latex") == 0
    shown = capsys.readouterr().out
    assert r"a\_b & 35.00 &" in shown
    assert r"50\% - a\_b & MRR@100" in shown
    assert shown.count(r"\begin{tabular}") == shown.count(r"\end{tabular}") == 2
    rows = [
        line for line in shown.splitlines() if line.endswith((r"\\", r"\hline")) and "&" in line
    ]
    assert all(row.count(r"\\") == 1 for row in rows)


def test_csv_holds_everything_in_full_precision(folders: Path, monkeypatch):
    out = folders / "made" / "table.csv"
    words = [folders / "raw", folders / "ours", "--published", "topiocqa/bm25"]
    assert run(monkeypatch, *words, "--format", "csv", "--out", out) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    kinds = [row["kind"] for row in rows]
    assert (kinds.count("mean"), kinds.count("pair")) == (8, 4)
    (mean,) = [r for r in rows if (r["method"], r["metric"], r["kind"]) == ("raw", "mrr", "mean")]
    assert float(mean["value"]) == 0.35
    published = [r for r in rows if r["kind"] == "published" and r["method"] == "Raw query"]
    assert [float(r["value"]) for r in published] == [0.021, 0.018, 0.04, 0.092]
    assert "arXiv" in published[0]["source"]


def test_published_numbers_stand_beside_ours_and_are_marked(folders: Path, monkeypatch, capsys):
    assert run(monkeypatch, folders / "ours", "--published", "topiocqa/ance") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^AdaQR \(published\) +38\.1 +36\.6 +61\.3 +79\.9$", shown, re.M)
    assert "The paper tests on 2514 turns, these folders on 5." in shown
    assert "averages over answered questions only" in shown
    assert run(monkeypatch, folders / "ours", "--published", "table6/topiocqa/bm25") == 0
    assert re.search(r"^exponential \(published\) +36\.8", capsys.readouterr().out, re.M)


def test_published_numbers_of_other_data_need_a_word(folders: Path, monkeypatch, capsys):
    words = [folders / "ours", "--published", "qrecc/bm25"]
    assert run(monkeypatch, *words) == 2
    assert "these folders are of topiocqa; nothing is comparable" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--published-anyway") == 0
    said = capsys.readouterr()
    assert "warning: the published numbers are of qrecc" in said.err
    assert "WARNING: the published numbers are of qrecc" in said.out


def test_every_question_with_all_its_outcomes(folders: Path, monkeypatch):
    words = [folders / "raw", f"ours={folders / 'ours'},{folders / 'ours2'}"]
    assert run(monkeypatch, *words, "--per-query", folders / "all.jsonl") == 0
    records = [json.loads(line) for line in (folders / "all.jsonl").read_text().splitlines()]
    assert [r["qid"] for r in records] == list(RAW)
    assert [seed["rank"] for seed in records[3]["methods"]["ours"]] == [4, 1]
    assert records[3]["question"] == "what of b_2 | x_y?"


def test_a_missing_matplotlib_is_named(folders: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = [folders / "raw", folders / "ours", "--plots", folders / "plots"]
    assert run(monkeypatch, *words) == 2
    assert "pip install -e '.[report]'" in capsys.readouterr().err
    assert not (folders / "plots").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{t}/raw"], "name two evaluations or more"),
        (["{t}/raw", "{t}/none"], "{t}/none: no such folder"),
        (["{t}/raw", "x={t}/ours,"], "expected FOLDER, NAME=FOLDER"),
        (["{t}/raw", "={t}/ours"], "expected FOLDER, NAME=FOLDER"),
        (["{t}/raw", "{t}/ours,{t}/ours2"], "several seeds need a name"),
        (["{t}/raw", "x={t}/ours,{t}/ours"], "names one folder twice"),
        (["{t}/raw", "{t}/raw"], "two methods are called 'raw'"),
        (["{t}/raw", "{t}/ours", "--against", "x"], "no method 'x'"),
        (["{t}/raw", "{t}/ours", "--permutations", "0"], "permutations must be 1 or more"),
        (["{t}/raw", "{t}/ours", "--published", "bm25"], "expected DATASET/ENGINE"),
        (["{t}/raw", "{t}/ours", "--published", "topiocqa/splade"], "table1 has no numbers for"),
        (["{t}/raw", "{t}/ours", "--published", "table4/topiocqa/bm25"], "the tables are table1,"),
        (["{t}/raw", "{t}/ours", "--out", "{t}/raw/run.json/x"], "cannot be read or written"),
        (["{t}/raw", "{t}/ours", "--plots", "{t}/raw/run.json"], "cannot be read or written"),
    ],
)
def test_wrong_words_are_a_sentence_and_code_2(
    words: list[str], said: str, folders: Path, monkeypatch, capsys
):
    assert run(monkeypatch, *(word.format(t=folders) for word in words)) == 2
    error = capsys.readouterr().err
    assert said.format(t=folders) in error.replace("\n", " ")
    assert "Traceback" not in error


HOSTILE = (
    "\x1b]0;t\x07 \u202emoc\r\n* +1.000 false: line <script>alert(1)</script> &lt; {name}{qid}"
)


@pytest.mark.parametrize("style", ["text", "markdown", "latex"])
@pytest.mark.parametrize("where", ["query", "question", "qid", "dataset"])
def test_what_models_and_users_wrote_commands_neither_terminal_nor_page(
    tmp_path: Path, monkeypatch, capsys, style: str, where: str
):
    qid = "a\x1b[2J\u2066<b>_1" if where == "qid" else "a_1"
    dataset = HOSTILE if where == "dataset" else "toy"
    question = HOSTILE if where == "question" else "what?"
    turn = Turn(qid=qid, conv_id="a", turn=1, split="test", question=question)
    write_turns(tmp_path / "turns.jsonl", [turn])
    inputs = {str(tmp_path / "turns.jsonl"): sha256_of(tmp_path / "turns.jsonl")}
    query = HOSTILE if where == "query" else "words"
    for name, rank in (("raw", None), ("ours", 1)):
        write_folder(
            tmp_path / name, {qid: rank, "b_1": 2}, dataset=dataset, inputs=inputs, query=query
        )
    assert run(monkeypatch, tmp_path / "raw", tmp_path / "ours", "--format", style) == 0
    shown = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert not any(line.startswith("* +1.000 false") for line in shown.splitlines())
    if style == "markdown":
        assert "<" not in shown
