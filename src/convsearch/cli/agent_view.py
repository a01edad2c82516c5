"""What the agent commands show: turns as they happen, and scores as a table."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from convsearch.agent import AgentState
from convsearch.episodes.evaluation import RunScore
from convsearch.types import Episode, Span
from convsearch.visible import visible

_COLUMNS = (
    ("em", "EM"), ("f1", "F1"), ("all_gold_5", "gold@5"), ("all_gold_10", "gold@10"),
    ("all_gold_20", "gold@20"), ("all_gold_read", "gold read"), ("searches", "searches"),
    ("queries", "queries"), ("documents", "documents"), ("model_tokens", "model tok."),
    ("tool_tokens", "result tok."),
)  # fmt: skip

_WITHIN = {
    "documents": (("em", "EM"), ("all_gold", "all gold"), ("within", "questions")),
    "tokens": (("em_tokens", "EM"), ("within_tokens", "questions")),
}


class TurnView:
    """Shows every span once, as soon as it is there. Text is shown as it is, never as markup, and
    what a model writes cannot command the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._shown = 0

    def show(self, state: AgentState) -> None:
        """Takes the state after a step."""
        for span in state.spans[self._shown :]:
            self._console.print(
                Panel(_text(span.text.strip()), title=_title(span), title_align="left")
            )
        self._shown = len(state.spans)
        if state.pending:
            self._console.print(_text(f"searching: {' | '.join(state.pending)}", style="dim"))

    def end(self, episode: Episode) -> None:
        """The answer, or why there is none."""
        answer = episode.answer if episode.answer is not None else f"no answer ({episode.ended_by})"
        if episode.error:
            answer = f"{answer}: {episode.error}"
        self._console.print(_text(answer, style="bold"))
        self._console.print(
            Text(
                f"{episode.num_turns} turns, {len(episode.queries)} queries, "
                f"{len(episode.doc_ids)} documents, {episode.num_model_tokens} + "
                f"{episode.num_tool_tokens} tokens",
                style="dim",
            )
        )


def _text(text: str, style: str = "") -> Text:
    """Text whose control characters (escape sequences, changes of direction) are shown as such."""
    return Text(visible(text), style=style)


def _title(span: Span) -> str:
    if span.kind == "model":
        return f"model ({span.fault})" if span.fault else "model"
    if not span.queries:
        return "correction"
    how = {True: ", squeezed", False: ", squeezer failed", None: ""}[span.squeezed]
    return f"results ({len(span.doc_ids)} documents{how})"


def show_scores(runs: Sequence[RunScore], budget: Mapping[str, object]) -> str:
    """The scores of runs as lines of text: unequal budgets, then equal ones."""
    lines: list[str] = []
    for run in runs:
        labels = ", ".join(f"{k} {v}" for k, v in run.labels.items() if isinstance(v, str))
        counts = ", ".join(f"{k} {v}" for k, v in run.counts.items())
        lines += [f"{run.name}: {labels}", f"  {counts}"]
        for key, title in _COLUMNS:
            if key in run.means:
                interval = {"em": run.em_interval, "f1": run.f1_interval}.get(key)
                tail = f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
                lines.append(f"  {title:<12} {run.means[key]:8.3f}{tail}")
        if run.seconds_per_question is not None:
            lines.append(f"  {'s a question':<12} {run.seconds_per_question:8.3f}")
        if run.latency:
            block = run.latency.get("batch_size")
            shares = ", ".join(f"{k} {v:.3f}" for k, v in run.latency.items() if k[0] == "p")
            lines.append(f"  latency s    {shares}" + (f" (blocks of {block})" if block else ""))
    found = budget["runs"]
    shares = found if isinstance(found, Mapping) else {}
    for unit, keys in _WITHIN.items():
        lines.append(f"within {budget[unit]} {unit}:")
        for name, values in shares.items():
            figures = ", ".join(f"{title} {values[key]:.3f}" for key, title in keys)
            lines.append(f"  {name}: {figures}")
    return "\n".join(lines)
