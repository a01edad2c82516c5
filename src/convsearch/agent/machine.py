"""The search agent as a pure state machine. Drivers of training and of inference share it.

    state = start(qid, question, strategy, form)      # may want a search at once (`rag`)
    state, outcome = step(state, model_text)          # SearchCall | FinalAnswer | Correction
    state = observe(state, evidence)                  # after a SearchCall
    episode = to_episode(state)                       # once `state.wants` is "nothing"

Only the text given to `step` is parsed, so nothing that a search brings back can call, answer or
end. Every bad input has an outcome that keeps the run alive and is counted in `state.counts`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from convsearch.agent.escape import escape
from convsearch.agent.formats import Fault, ToolFormat
from convsearch.agent.strategies import Budget, Strategy, check_together, opening_messages
from convsearch.types import ChatMessage, Episode, EpisodeStatus, Span

Wants = Literal["text", "results", "nothing"]
EndedBy = Literal["answer", "turns", "queries", "tokens", "faults", "error"]

_FAULTS: Mapping[Fault, str] = {
    "no_action": "That turn held neither a search nor an answer.",
    "unclosed": "The last tag was opened and not closed.",
    "not_json": "The call was not valid JSON.",
    "unknown_tool": 'There is no such tool. The only tool is "search".',
    "bad_arguments": "The call needs a list of texts.",
    "empty_query": "The query was empty.",
    "empty_answer": "The answer was empty.",
    "repeated_call": "All of these queries were searched before; the results are above.",
    "no_search_allowed": "There is no search here.",
}
_ANSWER_NOW = "No searches are left. Answer now from what you have read."


@dataclass(frozen=True, kw_only=True)
class SearchCall:
    """The agent waits for the results of these queries: cleaned, distinct, within the budget."""

    queries: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FinalAnswer:
    """The episode is over. answer is None where it ended without one."""

    answer: str | None
    ended_by: EndedBy


@dataclass(frozen=True, kw_only=True)
class Correction:
    """The turn was refused; the reason is now part of the context, and the model goes on."""

    fault: Fault


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a search brought back, as it will stand in the context."""

    text: str
    """Raw; the machine escapes it."""
    doc_ids: tuple[str, ...] = ()
    """The passages behind it, in fused order."""
    squeezed: bool | None = None
    """Whether a squeezer wrote the text; False where it failed, None where none was asked."""


def estimate_tokens(text: str) -> int:
    """Tokens of a text where nobody counted them: a quarter of its bytes in UTF-8, rounded up."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


@dataclass(frozen=True, kw_only=True)
class AgentState:
    """One episode so far. Immutable: each function returns the next one."""

    qid: str
    question: str
    strategy: Strategy
    form: ToolFormat
    count_tokens: Callable[[str], int] = field(compare=False, repr=False)
    wants: Wants = "text"
    """What the driver has to bring next."""
    spans: tuple[Span, ...] = ()
    passages: str | None = None
    """Escaped text of the search before the first turn (`rag`)."""
    pending: tuple[str, ...] = ()
    """Queries of the call that waits for results."""
    queries: tuple[str, ...] = ()
    doc_ids: tuple[str, ...] = ()
    counts: Mapping[str, int]
    faults: int = 0
    num_turns: int = 0
    model_tokens: int = 0
    tool_tokens: int = 0
    answer: str | None = None
    ended_by: EndedBy | None = None
    error: str | None = None


def start(
    qid: str,
    question: str,
    strategy: Strategy,
    form: ToolFormat,
    *,
    count_tokens: Callable[[str], int] = estimate_tokens,
) -> AgentState:
    """The state before the first text. count_tokens: the model's own, where the driver has it.

    Raises ConfigError where strategy and form do not fit.
    """
    check_together(strategy, form)
    state = AgentState(
        qid=qid,
        question=question,
        strategy=strategy,
        form=form,
        count_tokens=count_tokens,
        counts={},
    )
    if not strategy.retrieves_first:
        return state
    return replace(state, wants="results", pending=(_clean(question, strategy.budget)[0] or "?",))


def step(
    state: AgentState, model_text: str, num_tokens: int | None = None
) -> tuple[AgentState, SearchCall | FinalAnswer | Correction]:
    """Takes one text of the model and says what follows from it. Never raises for what it says.

    num_tokens: of the text, where the engine says; else they are counted. ValueError if the state
    does not want a text.
    """
    if state.wants != "text":
        raise ValueError(f"the agent wants {state.wants}, not a text")
    model_text = model_text.encode("utf-8", "replace").decode("utf-8")
    parsed = state.form.parse(model_text)
    tokens = num_tokens or state.count_tokens(model_text)
    fault, calls = parsed.fault, ()
    if parsed.queries:
        if state.strategy.searches:
            state, calls = _choose(state, parsed.queries)
            fault = fault if calls else "repeated_call"
        else:
            fault = "no_search_allowed"
    span = Span(
        kind="model",
        text=model_text,
        num_tokens=tokens,
        fault=fault,
        well_formed=parsed.well_formed and fault is None,
    )
    state = replace(
        state,
        spans=(*state.spans, span),
        num_turns=state.num_turns + 1,
        model_tokens=state.model_tokens + tokens,
    )
    if parsed.answer is not None:
        return _end(state, "answer", parsed.answer)
    if fault:
        state = replace(_count(state, fault), faults=state.faults + 1)
    budget = state.strategy.budget
    if state.faults > budget.max_faults:
        return _end(state, "faults")
    if state.num_turns >= budget.max_turns:
        return _end(state, "turns")
    if state.model_tokens >= budget.max_model_tokens:
        return _end(state, "tokens")
    if not fault and len(state.queries) >= budget.max_queries:
        return _end(state, "queries")
    if fault:
        return _add_results(state, _FAULTS[fault]), Correction(fault=fault)
    state = replace(state, wants="results", pending=calls)
    return state, SearchCall(queries=calls)


def observe(state: AgentState, evidence: Evidence) -> AgentState:
    """Takes the results of the pending call. ValueError if the state does not want results."""
    if state.wants != "results":
        raise ValueError(f"the agent wants {state.wants}, not results")
    queries = (*state.queries, *state.pending)
    known = dict.fromkeys((*state.doc_ids, *evidence.doc_ids))
    state = replace(state, queries=queries, doc_ids=tuple(known))
    if evidence.squeezed is False:
        state = _count(state, "squeezer_failed")
    text = escape(evidence.text).strip()
    if not text:
        state, text = _count(state, "no_results"), "Nothing was found."
    if not state.spans and state.strategy.retrieves_first:
        tokens = state.count_tokens(text)
        span = Span(
            kind="tool",
            text=text,
            num_tokens=tokens,
            queries=state.pending,
            doc_ids=evidence.doc_ids,
            squeezed=evidence.squeezed,
        )
        return replace(
            state, wants="text", pending=(), passages=text, spans=(span,), tool_tokens=tokens
        )
    return _add_results(state, text, evidence)


def fail(state: AgentState, error: str) -> AgentState:
    """Ends an episode whose model gave no text; error says why."""
    return replace(state, wants="nothing", pending=(), ended_by="error", error=error)


def exhaust(state: AgentState) -> AgentState:
    """Ends an episode that the model's context has no room for, without an answer."""
    return _end(replace(state, pending=()), "tokens")[0]


def messages(state: AgentState) -> list[ChatMessage]:
    """The chat that the model continues.

    In an inline form the last message, where there is one after the opening, is the model's own
    unfinished turn. Chat tokens that a model spelled out in plain letters are broken up: they
    would become real ones when the chat is rendered anew.
    """
    chat = opening_messages(state.strategy, state.form, state.question, state.passages)
    spans = state.spans[1:] if state.passages is not None else state.spans
    if state.form.inline:
        own = "".join(_spoken(span) for span in spans)
        return [*chat, {"role": "assistant", "content": own}] if own else chat
    roles = {"model": "assistant", "tool": "user"}
    return [*chat, *({"role": roles[span.kind], "content": _spoken(span)} for span in spans)]


def to_episode(
    state: AgentState, *, seed: int = 0, prefix_violations: int = 0, prefix_unknown: int = 0
) -> Episode:
    """The finished episode. ValueError while the agent still wants something.

    prefix_violations: prompts that did not begin with the ids before them, prefix_unknown: those
    of which the driver cannot say; both stand among the counts.
    """
    state = _count(state, "prefix_violations", prefix_violations)
    state = _count(state, "prefix_unknown", prefix_unknown)
    if state.wants != "nothing" or state.ended_by is None:
        raise ValueError(f"the episode is not over: the agent wants {state.wants}")
    status: EpisodeStatus = "no_answer"
    if state.ended_by == "error":
        status = "failed"
    elif state.answer is not None:
        status = "answered"
    return Episode(
        qid=state.qid,
        strategy=state.strategy.name,
        tool_format=state.form.name,
        status=status,
        ended_by=state.ended_by,
        answer=state.answer,
        spans=state.spans,
        queries=state.queries,
        doc_ids=state.doc_ids,
        counts=dict(sorted(state.counts.items())),
        num_turns=state.num_turns,
        num_model_tokens=state.model_tokens,
        num_tool_tokens=state.tool_tokens,
        seed=seed,
        error=state.error,
    )


def _choose(state: AgentState, wanted: tuple[str, ...]) -> tuple[AgentState, tuple[str, ...]]:
    """The queries of a call that will be searched; what is left out is counted."""
    budget = state.strategy.budget
    room = min(budget.max_queries_per_call, max(1, budget.max_queries - len(state.queries)))
    asked = {query.casefold() for query in state.queries}
    chosen: dict[str, str] = {}
    left_out = {"cut_queries": 0, "empty_queries": 0, "repeated_queries": 0, "dropped_queries": 0}
    for raw in wanted:
        query, cut = _clean(raw, budget)
        key = query.casefold()
        if not query:
            left_out["empty_queries"] += 1
        elif key in asked or key in chosen:
            left_out["repeated_queries"] += 1
        elif len(chosen) >= room:
            left_out["dropped_queries"] += 1
        else:
            chosen[key] = query
            left_out["cut_queries"] += cut
    for name, number in left_out.items():
        state = _count(state, name, number)
    return state, tuple(chosen.values())


def _clean(query: str, budget: Budget) -> tuple[str, bool]:
    """One line, white space collapsed, halves of surrogate pairs gone; and whether it was cut."""
    line = " ".join(query.encode("utf-8", "replace").decode("utf-8").split())
    return line[: budget.max_query_chars].strip(), len(line) > budget.max_query_chars


def _add_results(state: AgentState, text: str, evidence: Evidence | None = None) -> AgentState:
    budget = state.strategy.budget
    last = state.num_turns + 1 >= budget.max_turns or len(state.queries) >= budget.max_queries
    if last and state.strategy.searches:
        text = f"{text}\n{_ANSWER_NOW}"
    rendered = state.form.render_results(text)
    tokens = state.count_tokens(rendered)
    span = Span(
        kind="tool",
        text=rendered,
        num_tokens=tokens,
        queries=state.pending,
        doc_ids=evidence.doc_ids if evidence else (),
        squeezed=evidence.squeezed if evidence else None,
    )
    return replace(
        state,
        wants="text",
        pending=(),
        spans=(*state.spans, span),
        tool_tokens=state.tool_tokens + tokens,
    )


def _spoken(span: Span) -> str:
    return span.text if span.kind == "tool" else span.text.replace("<|", "< |")


def _end(
    state: AgentState, ended_by: EndedBy, answer: str | None = None
) -> tuple[AgentState, FinalAnswer]:
    state = replace(state, wants="nothing", ended_by=ended_by, answer=answer)
    return state, FinalAnswer(answer=answer, ended_by=ended_by)


def _count(state: AgentState, name: str, number: int = 1) -> AgentState:
    if not number:
        return state
    return replace(state, counts={**state.counts, name: state.counts.get(name, 0) + number})
