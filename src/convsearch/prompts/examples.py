"""Worked examples for few-shot prompts: general knowledge, in our own words, in no data set."""

from dataclasses import dataclass

from convsearch.types import Message, Turn


@dataclass(frozen=True, kw_only=True)
class WorkedExample:
    """A turn, why its question is rewritten so, and the rewrite."""

    turn: Turn
    reason: str
    rewrite: str


def _example(
    asked: str, answered: str, question: str, *, reason: str, rewrite: str
) -> WorkedExample:
    turn = Turn(
        qid="worked-example",
        conv_id="worked-example",
        turn=2,
        split="train",
        question=question,
        history=(Message(role="user", text=asked), Message(role="agent", text=answered)),
    )
    return WorkedExample(turn=turn, reason=reason, rewrite=rewrite)


WORKED_EXAMPLES = (
    _example(
        "which lighthouse did the Stevenson family build on Bell Rock?",
        "The Bell Rock Lighthouse off Arbroath, engineered by Robert Stevenson.",
        "how long did it take to build?",
        reason='"It" is the Bell Rock Lighthouse from the previous answer. The user wants the '
        "length of its construction, so a passage about building the lighthouse, with years or a "
        "duration, would answer. Robert Stevenson and Arbroath are likely to be mentioned there.",
        rewrite="how many years did construction of the Bell Rock Lighthouse near Arbroath by "
        "Robert Stevenson take",
    ),
    _example(
        "what is sourdough bread raised with?",
        "A starter: flour and water in which wild yeast and lactic acid bacteria live.",
        "and why is it sour?",
        reason='"It" is sourdough bread, not the starter alone. What makes it sour are the acids '
        "that the bacteria of the starter give off while the dough ferments, so those words belong "
        "in the query.",
        rewrite="why does sourdough bread taste sour, lactic acid bacteria in the starter during "
        "fermentation",
    ),
    _example(
        "tell me about the moons of Mars",
        "Mars has two small moons, Phobos and Deimos, found by Asaph Hall in 1877.",
        "what about Saturn, which one is the largest?",
        reason='The topic moves to Saturn; "which one" still means a moon. Nothing of Mars should '
        "stay in the query. A passage on Saturn's moons that compares their sizes would answer.",
        rewrite="largest moon of Saturn by size",
    ),
)
