"""Charts of search agents are drawn, and drawn alike each time."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from agent_case import some_questions
from matplotlib.figure import Figure

from convsearch.agent.ablation import ablate_variants, equal_documents
from convsearch.episodes.evaluation import RunScore, score_run
from convsearch.report import agent_charts
from convsearch.report.agent_charts import (
    cost_of,
    write_ablation_charts,
    write_score_charts,
    write_sweep_charts,
)
from convsearch.report.charts import SIZE_INCHES
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Episode, Passage

QUESTIONS = some_questions(3)
PASSAGES = [Passage(doc_id=f"d{i}", title=f"word{i}", text=f"program word{i}") for i in range(6)]
GOLDS = {q.qid: [f"d{i}"] for i, q in enumerate(QUESTIONS)}


def run(name: str, *, answers: bool = True) -> RunScore:
    episodes = [
        Episode(
            qid=q.qid, strategy="rag", tool_format="plain", status="answered", ended_by="answer",
            answer="Ada Lovelace", spans=(), queries=(), doc_ids=("d1",), num_model_tokens=5,
            num_tool_tokens=7,
        )
        for q in QUESTIONS
    ]  # fmt: skip
    asked = QUESTIONS if answers else [q.__class__(**{**vars(q), "answers": ()}) for q in QUESTIONS]
    return score_run(name, episodes, asked, GOLDS)


@pytest.mark.parametrize("form", ["svg", "png"])
def test_an_ablation_is_drawn_the_same_each_time(tmp_path: Path, form) -> None:
    retriever = InMemoryRetriever(PASSAGES)
    rows = ablate_variants(QUESTIONS, GOLDS, retriever, ns=(1, 2), ks=(1, 2), top=2)
    equal = equal_documents(QUESTIONS, GOLDS, retriever, ns=(1, 2), documents=(1, 2))
    made = [
        {p.name: p.read_bytes() for p in write_ablation_charts(tmp_path / n, rows, equal, top=2,
                                                               form=form)}
        for n in ("a", "b")
    ]  # fmt: skip
    assert made[0] == made[1]
    assert {name.partition(".")[0] for name in made[0]} == {
        "recall_by_n", "top_by_n", "recall_by_documents", "equal_documents_by_n",
    }  # fmt: skip
    if form == "svg":
        assert b"k = 2" in made[0]["recall_by_n.svg"]
        assert b"one query" in made[0]["recall_by_documents.svg"]


def test_names_of_runs_at_one_cost_do_not_cover_each_other(tmp_path: Path) -> None:
    drawn, _ = write_score_charts(tmp_path, [run("first"), run("second")], form="svg")
    heights = [
        float(re.findall(rf' y="([\d.]+)"[^>]*>{name}<', drawn.read_text())[0])
        for name in ("first", "second")
    ]
    assert abs(heights[0] - heights[1]) > 7  # the size of a letter


def test_runs_are_drawn_against_their_cost(tmp_path: Path) -> None:
    paths = write_score_charts(tmp_path, [run("first"), run("second")])
    assert [p.name for p in paths] == ["em_by_documents.svg", "em_by_tokens.svg"]
    drawn = paths[0].read_text()
    assert "second" in drawn
    assert "rag, squeezer not told" in drawn
    assert cost_of(run("x"), "tokens") == 12
    assert write_score_charts(tmp_path / "none", [run("x", answers=False)]) == []
    [path] = write_sweep_charts(tmp_path, {"em": {"none, k = 3": [(3, 0.5), (1, 0.2)]}})
    assert path.name == "em_by_n.svg"


def test_every_name_in_the_legend_is_within_the_picture(monkeypatch, tmp_path: Path) -> None:
    named = [
        replace(run(name), name=name, labels={"strategy": "parallel_search", "squeezer": name})
        for name in ("none", "extractive", "llm:a-model-of-seventy-billion-weights-instruct")
    ]
    seen = []

    def measure(out, draw, **_: object) -> None:
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        figure.draw_without_rendering()
        legend = axes.get_legend()
        assert legend is not None
        seen.append((legend.get_window_extent(), figure.bbox))

    monkeypatch.setattr(agent_charts, "draw_chart", measure)
    write_score_charts(tmp_path, named)
    assert len(seen) == 2
    for legend, picture in seen:
        assert legend.x0 >= picture.x0
        assert legend.x1 <= picture.x1
        assert legend.y1 <= picture.y1
