"""What a search agent does in training: the node `search_agent` of the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, cast, get_args

from convsearch.agent.formats import ToolFormat, tool_format
from convsearch.agent.model_squeezer import SqueezeBudget
from convsearch.agent.search import SearchSettings
from convsearch.agent.strategies import Budget, Strategy, check_together, strategy
from convsearch.errors import ConfigError
from convsearch.rewards.search_agent import AgentRewardSettings

NAME = "search_agent"
"""Of the agent loop, the reward manager and the node."""
ROLLOUTS_WITHOUT_STOP = ("hf_cpu",)
"""Rollouts that cannot end a generation at a string, which inline forms need."""
SqueezerName = Literal["none", "extractive", "llm"]


@dataclass(frozen=True, kw_only=True)
class LlmSettings:
    """The endpoint of the squeezer `llm`: any that is compatible with OpenAI's; its key comes from
    OPENAI_API_KEY. Every worker of the rollout has these limits for itself."""

    model: str = ""
    """The endpoint's name of it."""
    url: str = ""
    """Address, with or without `/v1/chat/completions`."""
    cache: str = ""
    """File that keeps what was squeezed, shared by workers and by `convsearch agent infer`."""
    concurrency: int = 16
    """Most requests under way."""
    attempts: int = 12
    """Most tries for one call; the deadline usually comes first."""
    deadline_s: float = 60.0
    """Of one call, all tries together."""
    max_input_tokens: int = 4096
    """Of the passages of one call, best first."""
    max_total_tokens: int | None = None
    """Of all calls that reach the endpoint, both ways; the run stops there. None: no limit."""
    usd_per_million_input: float = 0.0
    usd_per_million_output: float = 0.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "attempts", "deadline_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{NAME}.llm.{name} must be above 0")
        self.budget()

    def budget(self) -> SqueezeBudget:
        """What squeezing may cost."""
        return SqueezeBudget(
            max_input_tokens=self.max_input_tokens,
            max_total_tokens=self.max_total_tokens,
            usd_per_million_input=self.usd_per_million_input,
            usd_per_million_output=self.usd_per_million_output,
        )


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """One agent and what its episodes earn. Every field is a key of the node; two are nodes."""

    strategy: str = "expand_search"
    """A name in `convsearch.agent.STRATEGIES`."""
    num_variants: int | None = None
    """Queries of one call; None is the strategy's own number."""
    tool_format: str = "hermes"
    """A name in `convsearch.agent.FORMATS`."""
    topk: int = 3
    """Passages of each query."""
    max_documents: int | None = None
    """Passages of one call after fusion; None keeps all."""
    max_result_tokens: int = 1024
    """Longest text that one call brings into the context."""
    max_turns: int = Budget.max_turns
    """Texts that the model may write, the answer included."""
    max_turn_tokens: int | None = None
    """Longest text of one turn; None leaves it all the room there is."""
    squeezer: SqueezerName = "none"
    """What distils the passages of a call before the model reads them."""
    llm: LlmSettings = field(default_factory=LlmSettings)
    """The squeezer `llm`: the node `search_agent.llm`."""
    reward: AgentRewardSettings = field(default_factory=AgentRewardSettings)
    """What an episode earns: the node `search_agent.reward`."""

    def __post_init__(self) -> None:
        if self.squeezer not in get_args(SqueezerName):
            raise ConfigError(
                f"{NAME}.squeezer {self.squeezer!r} is not for training; choose one of "
                f"{', '.join(get_args(SqueezerName))}. A model that would run in every worker of "
                'the rollout is served once instead, with "vllm serve", and named by llm'
            )
        named = [bool(self.llm.model), bool(self.llm.url)]
        if self.squeezer == "llm" and not all(named):
            raise ConfigError(f"{NAME}.squeezer=llm needs {NAME}.llm.model and {NAME}.llm.url")
        if self.squeezer != "llm" and any(named):
            raise ConfigError(
                f"{NAME}.squeezer={self.squeezer} asks no endpoint; leave {NAME}.llm.model and "
                f"{NAME}.llm.url out, or set {NAME}.squeezer=llm"
            )
        if self.max_turn_tokens is not None and self.max_turn_tokens < 1:
            raise ConfigError(f"{NAME}.max_turn_tokens must be 1 or more")
        check_together(self.agent_strategy(), self.form())
        self.search()

    def agent_strategy(self) -> Strategy:
        """The strategy with its budget."""
        return strategy(self.strategy, num_variants=self.num_variants, max_turns=self.max_turns)

    def form(self) -> ToolFormat:
        """The form of calls and results."""
        return tool_format(self.tool_format)

    def search(self) -> SearchSettings:
        """How a call is answered."""
        return SearchSettings(
            topk=self.topk,
            max_documents=self.max_documents,
            max_result_tokens=self.max_result_tokens,
        )


def agent_settings(node: Mapping[str, object] | None) -> AgentSettings:
    """Checked settings from the configuration node; without one, the defaults.

    Raises ConfigError for an unknown key or a value of the wrong kind or size.
    """
    values = dict(node or {})
    parts = {"reward": AgentRewardSettings, "llm": LlmSettings}
    made: dict[str, Any] = {}
    for name, part in parts.items():
        given = values.pop(name, None)
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"{NAME}.{name} must hold settings, found {given!r}")
        made[name] = part(**_checked(part(), f"{NAME}.{name}", given or {}))
    return AgentSettings(**_checked(AgentSettings(), NAME, values), **made)


def check_rollout(settings: AgentSettings, rollout: str) -> None:
    """Raises ConfigError where this rollout of verl cannot speak the agent's form."""
    if settings.form().inline and rollout in ROLLOUTS_WITHOUT_STOP:
        raise ConfigError(
            f"{NAME}.tool_format={settings.tool_format} ends a turn at a tag, which "
            f"rollout.name={rollout} cannot; use rollout.name=vllm, or another tool_format"
        )


def _checked(like: object, node: str, values: Mapping[str, object]) -> dict[str, Any]:
    """The values, each of the kind that the default in `like` has (None where it may be None)."""
    found = {f.name: getattr(like, f.name) for f in fields(cast("Any", like))}
    defaults = {name: default for name, default in found.items() if not is_dataclass(default)}
    for name, value in values.items():
        if name not in defaults:
            raise ConfigError(f"{node}.{name}: no such setting; known are {', '.join(defaults)}")
        default = defaults[name]
        if default is None:
            right = value is None or _is_whole(value)
        elif isinstance(default, bool | str):
            right = isinstance(value, type(default))
        elif isinstance(default, int):
            right = _is_whole(value)
        else:
            right = _is_whole(value) or isinstance(value, float)
        if not right:
            kind = "a whole number or null" if default is None else f"like {default!r}"
            raise ConfigError(f"{node}.{name} must be {kind}, found {value!r}")
    return dict(values)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
