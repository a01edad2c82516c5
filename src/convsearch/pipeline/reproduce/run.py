"""Runs what a machine can run of a reproduction, and says why not for the rest."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convsearch.passport import write_passport
from convsearch.pipeline.reproduce.machine import Machine, evaluated, lacks
from convsearch.pipeline.reproduce.names import CORPORA
from convsearch.pipeline.reproduce.steps import Step, compare_words
from convsearch.pipeline.reproduce.tables import Plan

Outcome = Literal["done", "kept", "skipped", "failed"]
Report = Callable[[Step, Outcome, str], None]
"""(step, outcome, reason)."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of one step."""

    step: Step
    outcome: Outcome
    reason: str = ""


def run_plan(
    plan: Plan, steps: Sequence[Step], machine: Machine, root: Path, on_step: Report
) -> list[Ran]:
    """Runs the steps in order, in `root`; what is done is kept, what cannot run is skipped.

    A step that fails does not stop the others: those that need its result are skipped for want of
    it. What a killed step left is taken up or replaced by its own command the next time.
    """
    ran = []
    for step in steps:
        outcome, reason = _run(plan, step, machine, root, lambda s=step: on_step(s, "done", ""))
        ran.append(Ran(step=step, outcome=outcome, reason=reason))
        if outcome != "done":
            on_step(step, outcome, reason)
    return ran


def _run(
    plan: Plan, step: Step, machine: Machine, root: Path, on_start: Callable[[], None]
) -> tuple[Outcome, str]:
    if step.stays:
        return "skipped", "runs until it is stopped: start it yourself"
    if step.makes is not None and (root / step.makes).is_file():
        return "kept", f"{step.makes} is there"
    reasons = lacks(step, machine, root)
    if reasons:
        return "skipped", "; ".join(reasons)
    words = step.words
    if step.compares:  # what could not be evaluated here is left out
        dataset, engine = step.column
        words = compare_words(plan.table, evaluated(step, root), CORPORA[dataset], engine)
    on_start()
    if words[0] == "convsearch":
        words = (sys.executable, "-m", "convsearch.cli", *words[1:])
    env = {**os.environ, **dict(step.env)}
    code = subprocess.run(words, cwd=root, env=env).returncode
    if code != 0:
        return "failed", f"exit code {code}"
    if step.marked and step.makes is not None:
        write_passport(root / step.makes, stage="reproduce", settings={"command": step.line})
    return "done", ""
