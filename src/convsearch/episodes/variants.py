"""Query variants by a model: the first call that an agent would send, without searching for it."""

from collections.abc import Callable, Sequence

from convsearch.agent import start, strategy, tool_format
from convsearch.episodes.dialogue import Dialogue, speak
from convsearch.errors import EngineError
from convsearch.infer.engine import Engine, SamplingParams
from convsearch.types import Question

Progress = Callable[[int, int], None]
"""(questions done, questions in all)."""


def model_variants(
    questions: Sequence[Question],
    engine: Engine,
    num_variants: int,
    *,
    params: SamplingParams,
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Progress | None = None,
) -> dict[str, list[str]]:
    """qid -> the question itself and what the model would send for it, num_variants at most.

    The model gets the prompt of `expand_search`, in the form `plain`. Where it sends no call, the
    question stands alone; its qid has one entry, which a caller can count. Raises EngineError where
    the engine as a whole fails, or gives no answer to a single question.
    """
    found = {question.qid: [question.question] for question in questions}
    if num_variants < 2:
        return found
    chosen = strategy("expand_search", num_variants=num_variants - 1)
    answered = 0
    for begin in range(0, len(questions), batch_size):
        if on_progress:
            on_progress(begin, len(questions))
        dialogues = [
            Dialogue(state=start(q.qid, q.question, chosen, tool_format("plain")), seed=seed)
            for q in questions[begin : begin + batch_size]
        ]
        speak(engine, dialogues, params)
        for dialogue in dialogues:
            state = dialogue.state
            answered += state.ended_by != "error"
            asked = found[state.qid]
            same = " ".join(asked[0].split()).casefold()
            asked += [query for query in state.pending if query.casefold() != same]
    if questions and not answered:
        raise EngineError(
            f"engine {engine.identity.get('engine')} answered none of {len(questions)} questions; "
            "look at its log, or leave the model out: variants by rules need none"
        )
    return found
