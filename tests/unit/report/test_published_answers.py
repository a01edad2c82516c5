"""Published answers beside ours: marked, with sources, and means only of whole rows."""

from dataclasses import replace

from agent_case import some_questions

from convsearch.data.qa_sets import RAW_SPLITS
from convsearch.episodes.evaluation import score_run
from convsearch.report.published_answers import beside_published
from convsearch.types import Episode


def lines(sets: list[str]) -> list[str]:
    questions = [replace(q, dataset=name) for q, name in zip(some_questions(7), sets, strict=False)]
    episodes = [
        Episode(
            qid=q.qid, strategy="rag", tool_format="plain", status="answered", ended_by="answer",
            answer="Ada Lovelace" if i % 2 == 0 else "Bob", spans=(), queries=(), doc_ids=(),
        )
        for i, q in enumerate(questions)
    ]  # fmt: skip
    return beside_published([score_run("ours", episodes, questions, {})]).splitlines()


def test_ours_come_first_and_theirs_are_marked() -> None:
    shown = lines(list(RAW_SPLITS))
    ours = next(line for line in shown if line.startswith("| ours |"))
    assert ours == (
        "| ours | 100.0 | 0.0 | 100.0 | 0.0 | 100.0 | 0.0 | 100.0 | 57.1 | measured here |"
    )
    theirs = [line for line in shown if "(*published*)" in line]
    assert len(theirs) > 20
    assert all("[V]" in line or "[S]" in line or "[U]" in line for line in theirs)
    assert {line.count("|") for line in shown if line.startswith("|")} == {ours.count("|")}
    assert any(line.startswith("WARNING") and "Bamboogle" in line for line in shown)


def test_a_run_of_one_set_has_no_mean_over_seven() -> None:
    ours = next(line for line in lines(["nq"]) if line.startswith("| ours |"))
    assert ours == "| ours | 100.0 |  |  |  |  |  |  |  | measured here |"
