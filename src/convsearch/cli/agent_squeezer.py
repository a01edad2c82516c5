"""The squeezer that the options of an agent command name."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from convsearch.agent.model_squeezer import SqueezeBudget, estimate_squeezing
from convsearch.agent.search import SearchSettings
from convsearch.agent.squeeze import ExtractiveSqueezer, Squeezer
from convsearch.agent.strategies import Strategy
from convsearch.cli import options as o
from convsearch.episodes.dialogue import token_counter
from convsearch.episodes.squeezing import engine_squeezer
from convsearch.errors import ConfigError
from convsearch.infer import Engine
from convsearch.retrieval.cache import AnswerCache


@dataclass(frozen=True, kw_only=True)
class SqueezerOptions:
    """What the user asked for."""

    kind: str
    """none, extractive, llm or hf."""
    model: str | None = None
    url: str | None = None
    cache: Path | None = None
    device: str = "auto"
    budget: SqueezeBudget = field(default_factory=SqueezeBudget)

    @property
    def named(self) -> bool:
        """Whether anything is said that only a squeezer with a model needs."""
        return bool(self.model or self.url or self.cache or self.budget != SqueezeBudget())


def refuse_unused(kinds: Sequence[str], options: SqueezerOptions) -> None:
    """Raises ConfigError where options of a model are named and none of these squeezers asks one:
    an option without effect would pass for one that has it."""
    if options.named and not {"llm", "hf"} & set(kinds):
        raise ConfigError(
            f"squeezer {', '.join(map(repr, kinds))} asks no model; leave --squeezer-model, "
            "--squeezer-url, --squeezer-cache, --squeezer-max-tokens and prices out, or choose "
            "--squeezer llm or hf"
        )


@contextmanager
def open_squeezer(
    options: SqueezerOptions,
    search: SearchSettings,
    engine: Engine,
    strategy: Strategy,
    num_questions: int | None,
) -> Iterator[Squeezer | None]:
    """Opens it, after saying on stderr what it may cost. num_questions: None says nothing.

    Raises ConfigError where a model or an address is missing, or one is named for nothing.
    """
    refuse_unused([options.kind], options)
    if options.kind == "none":
        yield None
        return
    if options.kind == "extractive":
        yield ExtractiveSqueezer(token_counter(engine))
        return
    if options.model is None or (options.kind == "llm" and options.url is None):
        raise ConfigError(
            f"squeezer {options.kind!r} needs --squeezer-model"
            + (" and --squeezer-url" if options.kind == "llm" else "")
        )
    if num_questions is not None:
        estimate = estimate_squeezing(num_questions, strategy, search, options.budget)
        print(estimate, file=sys.stderr)
    with ExitStack() as stack:
        cache = stack.enter_context(AnswerCache(options.cache)) if options.cache else None
        name = "openai" if options.kind == "llm" else "transformers"
        opened = stack.enter_context(
            o.engine_of(name, options.model, url=options.url, device=options.device)
        )
        yield engine_squeezer(
            opened,
            name=f"{options.kind}:{options.model}",
            max_tokens=search.max_result_tokens,
            budget=options.budget,
            count_tokens=token_counter(opened),
            cache=cache,
        )
