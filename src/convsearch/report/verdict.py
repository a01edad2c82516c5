"""What a run showed, in sentences: as measured, in favour of the trained policy or not."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from convsearch.pipeline.layout import RunLayout
from convsearch.pipeline.rivals import SIGNIFICANT, strongest, training_free
from convsearch.pipeline.summary import PairedTest, Summary

_POLICIES_EXPLAINED = {
    "base": "rewrites of the policy before any training on ranks",
    "sft": "rewrites after self-distillation",
    "grpo": "rewrites after GRPO on the rank-incentive reward",
}


def explained(name: str) -> str:
    """What a row of the table searches."""
    if name in _POLICIES_EXPLAINED:
        return _POLICIES_EXPLAINED[name]
    parts, _, how = name.rpartition(".")
    if parts and how == "rrf":
        return f"the rankings of {' and '.join(parts.split('+'))}, fused by reciprocal ranks"
    if parts:
        return f"the queries of {' and '.join(parts.split('+'))}, joined in one"
    if name == "raw":
        return "the last question as it was asked"
    last = name.partition(":")[2]
    if not last:
        return "the last question with the whole conversation before it"
    exchanges = "exchange" if last == "1" else f"{last} exchanges"
    return f"the last question with the last {exchanges} before it"


def headline(summary: Summary) -> str:
    """Whether the policy learned, and whether that was worth it: two or three sentences."""
    mrr = {name: result.metrics["mrr"] for name, result in summary.stages.items()}
    course = f"MRR@{summary.mrr_depth} {mrr['base']:.3f} before training, {mrr['grpo']:.3f} after"
    tests = {test.against: test for test in summary.tests}
    best = strongest(summary.stages)
    if not tests:
        return f"{course}; the strongest row without training, {best}, has {mrr[best]:.3f}."
    learned = {
        1: f"Yes, it learned: {course}",
        0: f"It did not learn by more than chance: {course}",
        -1: f"Training made it worse: {course}",
    }[_sign(tests["base"])]
    against = {
        1: f"It beats every row without training; the strongest is {best}, {mrr[best]:.3f}"
        if all(_sign(tests[name]) > 0 for name in training_free(tests))
        else f"It beats the strongest row without training, {best} ({mrr[best]:.3f})",
        0: f"It is not told apart from the strongest row without training, {best} "
        f"({mrr[best]:.3f})",
        -1: f"The strongest row without training, {best}, finds more ({mrr[best]:.3f})",
    }[_sign(tests[best])]
    return f"{learned} ({_p(tests['base'])}). {against} ({_p(tests[best])})."


def findings(summary: Summary) -> list[str]:
    """The comparison in sentences."""
    mrr = {name: result.metrics["mrr"] for name, result in summary.stages.items()}
    grpo = summary.stages["grpo"]
    ratios = [
        f"{_times(mrr['grpo'], mrr[other])} {other} ({mrr[other]:.3f})"
        for other in dict.fromkeys(("raw", "history", strongest(summary.stages), "sft"))
    ]
    lines = [f"MRR@{summary.mrr_depth} of grpo is {mrr['grpo']:.3f}: {', '.join(ratios)}."]
    lines += _tested(summary.tests) if summary.tests else [_intervals(summary)]
    share = grpo.num_malformed / max(summary.num_queries, 1)
    lines.append(
        f"{grpo.num_malformed} of {summary.num_queries} responses of grpo ({share:.1%}) were "
        "malformed; those turns were searched with the raw question."
    )
    return lines


def next_steps(run: Path) -> list[tuple[str, str]]:
    """What to do with a finished run: what for, and the command or page."""
    model = shlex.quote(str(RunLayout(root=run).model("grpo")))
    return [
        ("try it", f"convsearch serve-rewriter --model {model}"),
        ("your data", "docs/own-data.md"),
    ]


def one_run_note() -> str:
    """What the intervals do not hold."""
    return (
        "One seed on one processor: the intervals tell how much the questions matter, not how much "
        "another seed or processor would change the training."
    )


def _tested(tests: Sequence[PairedTest]) -> list[str]:
    free = set(training_free([test.against for test in tests]))
    rows = [test for test in tests if test.against in free]
    sides = (
        (1, "Of the rows without training grpo beats, by more than chance"),
        (0, "Not told apart from it"),
        (-1, "Better than it by more than chance"),
    )
    parts = []
    for sign, what in sides:
        found = [test for test in rows if _sign(test) == sign]
        names = ", ".join(
            test.against if sign > 0 else f"{test.against} ({_p(test)})" for test in found
        )
        parts.append(f"{what}: {names or 'none'}.")
    parts.append(
        f"(MRR, paired randomisation by conversation, p below {SIGNIFICANT} after Holm's "
        f"correction for {len(tests)} tests. The strongest row is chosen on the split it is "
        "measured on, which favours that row.)"
    )
    return parts


def _intervals(summary: Summary) -> str:
    low, high = summary.stages["grpo"].mrr_interval
    raw_low, raw_high = summary.stages["raw"].mrr_interval
    apart = low > raw_high or high < raw_low
    return (
        f"The 95 % intervals of grpo ({low:.3f} to {high:.3f}) and raw ({raw_low:.3f} to "
        f"{raw_high:.3f}) {'do not overlap' if apart else 'overlap'}."
    )


def _sign(test: PairedTest) -> int:
    """1 where the method is better by more than chance, -1 where it is worse, else 0."""
    if test.p_holm >= SIGNIFICANT:
        return 0
    return 1 if test.difference > 0 else -1


def _p(test: PairedTest) -> str:
    return f"p = {test.p_holm:.3f}" if test.p_holm >= 0.001 else "p < 0.001"


def _times(value: float, base: float) -> str:
    return f"{value / base:.2f} times" if base else "no ratio to"
