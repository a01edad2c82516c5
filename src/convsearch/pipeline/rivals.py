"""The rows without training that stand beside a trained policy, and which of them it beats.

Concatenations of the conversation and unions of queries cost no training and have equalled trained
rewriters often enough that no table may leave the strongest of them out.
"""

from collections.abc import Mapping, Sequence

from convsearch.pipeline.comparison import Method, check_comparable, compare
from convsearch.pipeline.evaluation_folder import read_evaluation
from convsearch.pipeline.layout import POLICIES, RunLayout
from convsearch.pipeline.methods import MethodOptions, union_rows
from convsearch.pipeline.summary import PairedTest, Result

RIVALS = MethodOptions(
    baselines=("raw", "history:1", "history:2", "history:3", "history"),
    unions=("raw+history:1", "raw+history:2", "raw+history:3", "raw+history"),
)
"""What is evaluated without training: the question, the last exchanges or all with it, and the
question joined with each of these by text and by ranks."""
TRAINING_FREE = (*RIVALS.baselines, *(row for spec in RIVALS.unions for row in union_rows(spec)))
"""Their rows, in the order of every table."""
ALWAYS_SHOWN = ("raw", "history")
NUM_BEST_SHOWN = 3
"""Of the other rows without training, those of the highest MRR are shown."""
SIGNIFICANT = 0.05
"""What a corrected p value must be below to be called more than chance."""


def training_free(names: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Those of the names that need no training, in their order."""
    return [name for name in names if name not in POLICIES]


def strongest(results: Mapping[str, Result]) -> str:
    """The row without training that has the highest MRR; the first of equal ones.

    It is chosen by the figures that it is then compared with, which favours it.
    """
    return max(training_free(results), key=lambda name: results[name].metrics["mrr"])


def shown_rows(results: Mapping[str, Result]) -> list[str]:
    """The rows of a table: `raw`, `history`, the best of the other rows without training, and the
    policies, in the order of `results`."""
    others = [name for name in training_free(results) if name not in ALWAYS_SHOWN]
    others.sort(key=lambda name: -results[name].metrics["mrr"])
    hidden = set(others[NUM_BEST_SHOWN:])
    return [name for name in results if name not in hidden]


def paired_tests(
    layout: RunLayout, names: Sequence[str], *, policy: str = "grpo", seed: int = 0
) -> tuple[PairedTest, ...]:
    """MRR of the policy against each other row: paired randomisation by conversation, corrected by
    Holm for all rows together.

    names: evaluated rows of the run, the policy among them. Raises what `read_evaluation` raises.
    """
    methods = [Method(name=name, seeds=(read_evaluation(layout.eval(name)),)) for name in names]
    check_comparable(methods)
    found = compare(methods, metrics=("mrr",), against=policy, seed=seed, num_changes=0)
    return tuple(
        PairedTest(
            method=policy,
            against=pair.method,
            difference=-pair.difference,
            interval=(-pair.interval[1], -pair.interval[0]) if pair.interval else None,
            p=pair.p,
            p_holm=pair.p_holm,
            wins=pair.losses,
            ties=pair.ties,
            losses=pair.wins,
        )
        for pair in found.pairs
    )
