"""What the end-to-end tests of GRPO share: a taught tiny model, a corpus, a server, settings."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tiny_model import WORDS

from convsearch.files import write_qrels
from convsearch.passages import write_passages
from convsearch.train.grpo_settings import GrpoSettings
from convsearch.types import Passage

NUM_PASSAGES = 120
NUM_PROMPTS = 16
PROMPTS_PER_STEP = 4
ROLLOUTS = 4
SAME_PROBABILITY = 1e-5
"""Float32 rounding stays well below, weights that are one update old (1e-3 and more) well above."""


def write_case(folder: Path) -> None:
    """`corpus.jsonl`, `qrels.trec`, `grpo.parquet`: questions of words from the gold passage."""
    rng = random.Random(0)
    passages = [
        Passage(doc_id=f"p{i}", title="", text=" ".join(rng.choices(WORDS, k=12)))
        for i in range(NUM_PASSAGES)
    ]
    write_passages(folder / "corpus.jsonl", passages)
    golds = rng.sample(passages, NUM_PROMPTS)
    write_qrels(folder / "qrels.trec", {f"q{i}": {p.doc_id: 1} for i, p in enumerate(golds)})
    rows = [
        {
            "data_source": "toy",
            "prompt": [{"role": "user", "content": "Q: " + " ".join(gold.text.split()[:3])}],
            "ability": "rewrite",
            "reward_model": {"style": "rule", "ground_truth": [gold.doc_id]},
            "extra_info": {"split": "train", "index": i, "answer": "", "query_id": f"q{i}"},
        }
        for i, gold in enumerate(golds)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "grpo.parquet")


def grpo_settings(folder: Path, *, total_steps: int, out: str) -> GrpoSettings:
    """A few steps of a few samples, with a checkpoint after every step."""
    return GrpoSettings(
        model_path=folder / "tiny",
        train_file=folder / "grpo.parquet",
        out_dir=folder / out,
        total_steps=total_steps,
        prompts_per_step=PROMPTS_PER_STEP,
        rollouts=ROLLOUTS,
        micro_batch=8,
        lr=1e-3,
        lr_warmup_steps=0,
        kl_coef=0.001,
        temperature=1.0,
        filter_groups=True,
        max_prompt_length=64,
        max_response_length=48,
        num_gpus=1,
        device="cpu",
        dtype="float32",
        save_freq=1,
        dump_rollouts=True,
        time_limit_s=900.0,
    )


def sync_failures(metrics: dict[int, dict[str, float]], steps: list[int]) -> list[str]:
    """What is wrong with a run whose rollouts must be drawn from the weights that are trained.

    verl recomputes the probability of every sampled token with the trained policy; in float32 the
    two differ by rounding alone. A run with stale weights ends without an error too.
    """
    wrong = [] if list(metrics) == steps else [f"steps {list(metrics)} instead of {steps}"]
    for step, values in metrics.items():
        if not values["training/rollout_actor_probs_pearson_corr"] > 0.999:
            wrong.append(f"step {step}: pearson")
        if not values["training/rollout_probs_diff_max"] < SAME_PROBABILITY:
            wrong.append(f"step {step}: difference {values['training/rollout_probs_diff_max']}")
        if not 0 < values["actor/grad_norm"] < float("inf"):
            wrong.append(f"step {step}: gradient {values['actor/grad_norm']}")
    return wrong
