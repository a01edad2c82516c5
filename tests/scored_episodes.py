"""Four questions and two runs over them: one that reads much, one that reads little."""

from agent_case import some_questions

from convsearch.types import Episode, Span

QUESTIONS = some_questions(4)
GOLDS = {"q0": ["d1", "d2"], "q1": ["d1"], "q2": ["d9"]}


def episode(i: int, answer: str | None, *docs: str, status: str | None = None) -> Episode:
    spans = (
        Span(kind="model", text="t", num_tokens=5, fault=None if answer else "no_action"),
        Span(kind="tool", text="r", queries=("a", "b"), doc_ids=docs, squeezed=False),
    )
    return Episode(
        qid=f"q{i}",
        strategy="expand_search",
        tool_format="plain",
        status=status or ("answered" if answer else "no_answer"),  # pyright: ignore
        ended_by="answer",
        answer=answer,
        spans=spans,
        queries=("a", "b"),
        doc_ids=docs,
        num_turns=1,
        num_model_tokens=5,
        num_tool_tokens=7,
    )


MANY = [
    episode(0, "Ada Lovelace", "d1", "x1", "x2", "x3", "x4", "d2"),
    episode(1, "Ada", "d1"),
    episode(2, None, "x1"),
    episode(3, None, status="failed"),
]
FEW = [episode(i, "the Ada Lovelace" if i < 2 else "Bob", "d1", "d2") for i in range(4)]
