"""Query variants by a model: what its first call asks, the question itself first."""

import pytest
from agent_case import ScriptedChat, ScriptedTokens, answer, call, some_questions

from convsearch.episodes.variants import model_variants
from convsearch.errors import EngineError
from convsearch.infer import SamplingParams

PARAMS = SamplingParams(temperature=0, max_tokens=50)


@pytest.mark.parametrize("kind", [ScriptedChat, ScriptedTokens])
def test_the_question_and_what_the_model_would_send(kind):
    said = {
        "word0": call("plain", "Ada", "WHO wrote program  word0?", "engine"),
        "word1": answer("Ada Lovelace"),
        "word2": call("plain", "a", "b", "c", "d"),
        "word3": "no action",
        "word4": None,
    }
    engine = kind(lambda dialogue, _: next(t for word, t in said.items() if word in dialogue))
    done: list[int] = []
    found = model_variants(
        some_questions(5), engine, 4, params=PARAMS, batch_size=2,
        on_progress=lambda number, _: done.append(number),
    )  # fmt: skip
    asked = [q.question for q in some_questions(5)]
    assert list(found.values()) == [
        [asked[0], "Ada", "engine"], [asked[1]], [asked[2], "a", "b", "c"], [asked[3]], [asked[4]],
    ]  # fmt: skip
    assert (engine.batches, done) == ([2, 2, 1], [0, 2, 4])


def test_one_query_asks_no_model_and_silence_is_an_error():
    engine = ScriptedChat(lambda *_: None)
    assert model_variants(some_questions(1), engine, 1, params=PARAMS) == {
        "q0": ["who wrote program word0?"]
    }
    assert engine.batches == []
    with pytest.raises(EngineError, match="answered none of 2 questions"):
        model_variants(some_questions(2), engine, 3, params=PARAMS)
