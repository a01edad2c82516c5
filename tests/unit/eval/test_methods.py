"""The methods of a table: their queries, their unions, and who stands first."""

from pathlib import Path

import pytest
from rewriting import some_turns

from convsearch.errors import ConfigError
from convsearch.files import write_rewrites
from convsearch.pipeline.baselines import baseline_queries
from convsearch.pipeline.evaluation import Evaluation
from convsearch.pipeline.evaluation_files import metrics_record
from convsearch.pipeline.method_table import Row, markdown_table
from convsearch.pipeline.methods import Method, MethodOptions, choose_methods, evaluate_methods
from convsearch.pipeline.searched import cut_queries, searched_queries
from convsearch.retrieval.fusion import fused
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage, Rewrite

TURNS = some_turns(9, split="test")
PASSAGES = [Passage(doc_id=f"d{i}", title="", text=t.question) for i, t in enumerate(TURNS)] + [
    Passage(doc_id=f"x{i}", title="", text=t.question.split()[0]) for i, t in enumerate(TURNS)
]
QRELS = {t.qid: {f"d{i}": 1} for i, t in enumerate(TURNS)}
RETRIEVER = InMemoryRetriever(PASSAGES)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Rewrites `one first-word` for all turns; the fourth is malformed and the last is missing."""
    rewrites = [
        Rewrite(qid=t.qid, status="ok", text=f"one {t.question.split()[0]}", response="", seed=0)
        for t in TURNS[:-1]
    ]
    rewrites[3] = Rewrite(qid=TURNS[3].qid, status="malformed", text=None, response="x", seed=0)
    write_rewrites(tmp_path / "made.jsonl", rewrites)
    return tmp_path / "made.jsonl"


def evaluated(methods: list[Method], **options: bool) -> dict[str, Evaluation]:
    found: dict[str, Evaluation] = {}
    evaluate_methods(
        methods,
        RETRIEVER,
        QRELS,
        on_done=lambda method, evaluation: found.update({method.name: evaluation}),
        **options,
    )
    return found


def test_the_last_exchanges_and_no_more():
    third = next(t for t in TURNS if len(t.history) == 4)
    said = [m.text for m in third.history]
    queries = {name: baseline_queries([third], name)[third.qid] for name in
               ("raw", "history:1", "history:2", "history:9", "history")}  # fmt: skip
    assert queries["raw"] == third.question
    assert queries["history:1"] == " ".join([*said[2:], third.question])
    assert queries["history:2"] == " ".join([*said, third.question])
    assert queries["history:9"] == queries["history"] == queries["history:2"]


@pytest.mark.parametrize("name", ["history:0", "history:", "history:x", "Raw", "history:-1", ""])
def test_unknown_baselines_are_refused(name: str):
    with pytest.raises(ConfigError, match="raw or history"):
        baseline_queries(TURNS, name)


def test_training_free_methods_stand_first_and_unions_follow_their_parts(made: Path):
    options = MethodOptions(
        baselines=("raw", "history:1"),
        prompted=(f"zero={made}",),
        rewrites=(f"policy={made}",),
        unions=("raw+zero", "raw+policy"),
    )
    rows = [(m.name, m.trained) for m in choose_methods(TURNS, options)]
    assert rows == [
        ("raw", False), ("history:1", False), ("zero", False),
        ("raw+zero.text", False), ("raw+zero.rrf", False),
        ("policy", True), ("raw+policy.text", True), ("raw+policy.rrf", True),
    ]  # fmt: skip
    assert options.is_table
    assert [m.folder for m in choose_methods(TURNS, options)][1] == "history-1"


def test_a_union_by_text_joins_what_is_well_formed(made: Path):
    options = MethodOptions(baselines=("raw",), prompted=(f"zero={made}",), unions=("raw+zero",))
    joined = {m.name: m for m in choose_methods(TURNS, options)}["raw+zero.text"].searched
    first = TURNS[0].question
    assert joined[0].query == f"{first} one {first.split()[0]}"
    assert (joined[3].query, joined[3].status) == (TURNS[3].question, "malformed")
    assert (joined[8].query, joined[8].status) == (TURNS[8].question, "missing")


def test_a_union_by_ranks_fuses_the_rankings_of_its_parts(made: Path):
    options = MethodOptions(
        baselines=("raw", "history"), prompted=(f"zero={made}",), unions=("history+zero",)
    )
    found = evaluated(choose_methods(TURNS, options))
    union = found["history+zero.rrf"]
    for i, turn in enumerate(TURNS):
        lists = [found["history"].run[turn.qid]]
        if i not in (3, 8):
            lists.append(found["zero"].run[turn.qid])
        assert [h.doc_id for h in union.run[turn.qid]] == [h.doc_id for h in fused(lists)][:100]
    assert union.counts == found["zero"].counts
    answered = evaluated(choose_methods(TURNS, options), paper_compat=True)
    assert answered["history+zero.rrf"].num_averaged == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (MethodOptions(baselines=("raw", "raw")), "two methods are called 'raw'"),
        (MethodOptions(rewrites=("nofile",)), "as NAME=FILE"),
        (MethodOptions(rewrites=("a b=file",)), "as NAME=FILE"),
        (MethodOptions(prompted=("a+b=file",)), "as NAME=FILE"),
        (MethodOptions(baselines=("raw",), unions=("raw+human",)), "its methods: raw"),
        (MethodOptions(baselines=("raw",), unions=("raw",)), "two or more different methods"),
        (MethodOptions(baselines=("raw",), unions=("raw+raw",)), "two or more different methods"),
    ],
)
def test_methods_that_cannot_be_are_refused(options: MethodOptions, said: str):
    with pytest.raises(ConfigError, match=said):
        choose_methods(TURNS, options)


def test_queries_are_cut_by_words():
    searched = searched_queries(TURNS, baseline_queries(TURNS, "history"))
    cut = cut_queries(searched, 4)
    assert [s.query for s in cut] == [" ".join(s.query.split()[:4]) for s in searched]
    assert cut_queries(searched, None) == searched
    with pytest.raises(ConfigError, match="1 word or more"):
        cut_queries(searched, 0)


def test_one_name_or_one_file_decides_between_table_and_single(made: Path):
    assert not MethodOptions(baselines=("raw",)).is_table
    assert not MethodOptions(rewrites=(str(made),)).is_table
    assert MethodOptions(rewrites=(f"mine={made}",)).is_table
    odd = made.rename(made.parent / "lr=1e-6.jsonl")
    assert not MethodOptions(rewrites=(str(odd),)).is_table


def test_the_table_names_mrr_by_its_depth_and_counts_its_parts(made: Path):
    options = MethodOptions(baselines=("raw",), rewrites=(f"policy={made}",))
    switches = {t.qid: t.turn == 3 if t.turn > 1 else None for t in TURNS}
    methods = choose_methods(TURNS, options, switches=switches)
    found = evaluated(methods)
    rows = [
        Row(name=m.name, trained=m.trained, folder=m.folder, record=metrics_record(found[m.name]))
        for m in methods
    ]
    text = markdown_table(rows, title="toy, test")
    assert "| method | trained | mrr@100 (95 %) | ndcg@3 | recall@5 |" in text
    assert "| method | 1 (n=3) | 2 (n=3) | 3 (n=3) |" in text
    assert "| method | first (n=3) | same (n=3) | switch (n=3) |" in text
    [line] = [each for each in text.splitlines() if each.startswith("| policy | yes |")]
    assert line.endswith("| 2 |")
    assert f"{found['policy'].metrics['mrr']:.3f} (" in line
