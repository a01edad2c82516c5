"""The ablation with a model: every number of queries with every depth and every squeezer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convsearch.episodes.evaluation import RunScore
from convsearch.errors import ConfigError

SQUEEZERS = ("none", "extractive", "llm", "hf")
_SHOWN = ("em", "f1", "all_gold_10", "all_gold_read", "documents", "model_tokens", "tool_tokens")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting of the sweep."""

    n: int
    """Queries of one call."""
    k: int
    """Passages of each query."""
    squeezer: str

    @property
    def name(self) -> str:
        """Of its files and its line in the tables."""
        return f"{self.squeezer}_k{self.k}_n{self.n}"


def sweep_cells(ns: Sequence[int], ks: Sequence[int], squeezers: Sequence[str]) -> list[Cell]:
    """All of them, each once. Raises ConfigError for numbers below 1 and unknown squeezers."""
    if not ns or not ks or min(*ns, *ks) < 1:
        raise ConfigError(f"n and k must be 1 or more, got n={list(ns)}, k={list(ks)}")
    unknown = [name for name in squeezers if name not in SQUEEZERS]
    if unknown or not squeezers:
        raise ConfigError(
            f"unknown squeezer {unknown[0] if unknown else ''!r}; choose from "
            f"{', '.join(SQUEEZERS)}"
        )
    return [
        Cell(n=n, k=k, squeezer=name)
        for name in dict.fromkeys(squeezers)
        for k in dict.fromkeys(ks)
        for n in dict.fromkeys(ns)
    ]


def sweep_table(scored: Mapping[Cell, RunScore], budget: Mapping[str, object]) -> str:
    """A line for each cell in Markdown; the last columns are EM within one number of documents, and
    of tokens, and the questions that the engine did not answer: they count as wrong and as free."""
    within = budget["runs"]
    shares = within if isinstance(within, Mapping) else {}
    lines = [
        f"| squeezer | k | n | EM (95 %) | {' | '.join(_SHOWN[1:])} | p50 s | "
        f"EM within {budget['documents']} documents | EM within {budget['tokens']} tokens "
        "| failed |",
        f"|{' --- |' * (len(_SHOWN) + 7)}",
    ]
    for cell, run in scored.items():
        low, high = run.em_interval or (0.0, 0.0)
        em = f"{run.means['em']:.3f} [{low:.3f}, {high:.3f}]" if "em" in run.means else ""
        means = [f"{run.means[key]:.3f}" if key in run.means else "" for key in _SHOWN[1:]]
        latency = f"{run.latency['p50']:.3f}" if run.latency else ""
        lines.append(
            f"| {cell.squeezer} | {cell.k} | {cell.n} | {em} | {' | '.join(means)} | {latency} | "
            f"{shares[run.name]['em']:.3f} | {shares[run.name]['em_tokens']:.3f} | "
            f"{run.counts['failed']} |"
        )
    return "\n".join(lines)


def sweep_curves(
    scored: Mapping[Cell, RunScore],
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Measure -> `squeezer, k` -> points (n, value), for what every cell has."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for measure in ("em", "all_gold_read"):
        if all(measure in run.means for run in scored.values()):
            lines = curves.setdefault(measure, {})
            for cell, run in scored.items():
                line = lines.setdefault(f"{cell.squeezer}, k = {cell.k}", [])
                line.append((cell.n, run.means[measure]))
    return curves
