"""`convsearch rewrite`: one question -> its query, to see what a model does."""

from typing import Annotated

import typer

from convsearch.cli import options as o
from convsearch.cli.infer import PromptFileOption, PromptOption, ShotsOption
from convsearch.errors import EngineError
from convsearch.infer import SamplingParams
from convsearch.infer.asked import how_to_ask
from convsearch.infer.rewriter import Rewriter
from convsearch.prompts import read_template


def command(
    question: Annotated[str, typer.Argument(help="The last question of the conversation.")],
    history: Annotated[
        list[str] | None,
        typer.Option(help="What was said before, oldest first: user, agent, user, ..., agent."),
    ] = None,
    model: o.ModelOption = None,
    engine: o.EngineOption = "transformers",
    prompt: PromptOption = None,
    prompt_file: PromptFileOption = None,
    shots: ShotsOption = 0,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the response; 0 takes the likeliest token.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(help="Share of the probability to draw from.")] = 1.0,
    max_tokens: o.MaxTokensOption = None,
    seed: Annotated[int, typer.Option(help="Same seed, same rewrite.")] = 0,
    engine_url: o.EngineUrlOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = "auto",
) -> None:
    """Rewrite one question; the query goes to stdout, what else there is to say to stderr."""
    template = read_template(prompt_file) if prompt_file else None
    asked = how_to_ask(model, style=prompt, max_tokens=max_tokens, prompt_file=template)
    params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=asked.max_tokens)
    with o.engine_of(engine, model, url=engine_url, device=device, dtype=dtype) as opened:
        rewriter = Rewriter(
            opened, style=asked.style, params=params, shots=shots, prompt_file=template
        )
        found = rewriter.rewrite(question, history or (), seed=seed)
    if found.status == "failed":
        raise EngineError(f"no answer to this question: {found.error}")
    if found.text is None:
        typer.echo(
            f"malformed for prompt style {asked.style}, so the question itself is the query; the "
            f"model wrote: {found.response!r}",
            err=True,
        )
    o.say(found.text or question)
