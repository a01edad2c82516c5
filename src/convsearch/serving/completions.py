"""Chat completions in OpenAI's form, whole or as a stream of events."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence

from convsearch.infer.engine import Generation

Json = dict[str, object]


def cut_at_stops(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first of the stop strings, and whether there is one."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def usage(generations: Sequence[Generation]) -> Json:
    """Tokens of the prompt, counted once, and of all responses as they were generated."""
    prompt = max((g.prompt_tokens for g in generations), default=0)
    made = sum(g.num_tokens for g in generations)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def completion(model: str, generations: Sequence[Generation], stops: Sequence[str]) -> Json:
    """The whole answer."""
    return {
        **_head(model, "chat.completion"),
        "choices": [
            {
                "index": i,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reason,
                "logprobs": None,
            }
            for i, (text, reason) in enumerate(_ended(g, stops) for g in generations)
        ],
        "usage": usage(generations),
    }


def completion_events(
    model: str, generations: Sequence[Generation], stops: Sequence[str], *, with_usage: bool
) -> Iterator[str]:
    """The same as server-sent events: the text of each choice in one piece, since the engines give
    it whole; then how it ended; the usage where it was asked for; `[DONE]`."""
    head = _head(model, "chat.completion.chunk")
    for i, generation in enumerate(generations):
        text, reason = _ended(generation, stops)
        pieces = (({"role": "assistant", "content": text}, None), ({}, reason))
        for delta, finish in pieces:
            choice = {"index": i, "delta": delta, "finish_reason": finish}
            yield _event({**head, "choices": [choice]})
    if with_usage:
        yield _event({**head, "choices": [], "usage": usage(generations)})
    yield "data: [DONE]\n\n"


def _head(model: str, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _ended(generation: Generation, stops: Sequence[str]) -> tuple[str, str]:
    """Text, and why it ends where it does."""
    text, at_stop = cut_at_stops(generation.text, stops)
    return text, "length" if generation.is_cut and not at_stop else "stop"


def _event(body: Json) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
