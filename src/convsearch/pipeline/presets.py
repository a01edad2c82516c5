"""Named runs. A preset is a complete configuration; the command line changes single settings."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from convsearch.distill import DistillSettings
from convsearch.errors import ConfigError
from convsearch.infer import SamplingParams
from convsearch.nano.settings import MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS
from convsearch.pipeline.config import (
    UNSET,
    DataSettings,
    InferSettings,
    PipelineConfig,
)
from convsearch.pipeline.overrides import apply_overrides
from convsearch.pipeline.own_run import own_run
from convsearch.train.grpo_settings import GrpoSettings
from convsearch.train.sft import SftSettings

NANO_POLICY = Path(__file__).parents[3] / "assets" / "nano"
"""The embedded policy, beside the source code; an installed wheel does not hold it."""
POOLED = ("topiocqa_pages", "cqr_default")
PRESETS = ("mini", "tiny", *POOLED)


def mini(policy: Path) -> PipelineConfig:
    """The quickstart: embedded data and policy, made for two CPU cores."""
    return _on_cpu(
        dataset="mini",
        policy=policy,
        data=DataSettings(eval_split="test", distill_turns=400),
        grpo=_GRPO,
    )


def tiny(policy: Path) -> PipelineConfig:
    """Every stage of `mini` at a size that only shows that it runs; for tests."""
    small = {"total_steps": 2, "prompts_per_step": 4, "rollouts": 2, "micro_batch": 8}
    return _on_cpu(
        dataset="mini",
        policy=policy,
        data=DataSettings(
            eval_split="test", eval_turns=24, distill_turns=48, grpo_turns=24, grpo_val_turns=6
        ),
        distill=dataclasses.replace(_DISTILL, candidates=4, max_rank=100),
        sft=dataclasses.replace(_SFT, batch=8, micro_batch=8, epochs=1),
        grpo=dataclasses.replace(_GRPO, **small, save_freq=1),
    )


def pooled(name: str, policy: Path, source: Path) -> PipelineConfig:
    """One of the data sets of `docs/real-data.md`, with a nano policy that was made for it."""
    return dataclasses.replace(
        _on_cpu(
            dataset=name,
            policy=policy,
            data=DataSettings(eval_split="dev", distill_turns=800),
            grpo=dataclasses.replace(
                _GRPO, total_steps=100, entropy_coef=0.0, lr_schedule="cosine"
            ),
        ),
        kind="pooled",
        source=source,
    )


def preset(
    name: str,
    *,
    source: Path | None,
    policy: Path | None,
    dataset: Path | None = None,
    overrides: Sequence[str] = (),
) -> PipelineConfig:
    """The preset with single settings changed.

    source: folder of the data in the pooled format, for presets that need it. policy: None takes
    the embedded one; for a data set folder, one that the run builds. dataset: a data set folder,
    run with the sizes of the preset. Raises ConfigError for an unknown preset or setting, where
    source or policy is missing, and what `own_run` raises.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    if dataset is not None:
        if source is not None:
            raise ConfigError(
                "--dataset names a data set folder and --source one in the pooled format; leave "
                "one of them out"
            )
        some = policy or NANO_POLICY
        base = pooled(name, some, dataset) if name in POOLED else _EMBEDDED[name](some)
        return apply_overrides(own_run(base, dataset, policy), overrides)
    if name in POOLED:
        if source is None or policy is None:
            raise ConfigError(
                f"preset {name!r} needs its data (--dataset, or --source for a folder in the "
                "pooled format) and, with --source, a policy that was made for it (--policy); "
                "docs/real-data.md tells how to get both"
            )
        return apply_overrides(pooled(name, policy, source), overrides)
    config = _EMBEDDED[name](policy or NANO_POLICY)
    return apply_overrides(dataclasses.replace(config, source=source), overrides)


_EMBEDDED = {"mini": mini, "tiny": tiny}
_DISTILL = DistillSettings(
    style="nano",
    candidates=4,
    temperature=0.8,
    max_tokens=MAX_RESPONSE_TOKENS,
    val_fraction=0.1,
)
_SFT = SftSettings(
    model_path=UNSET,
    train_file=UNSET,
    out_dir=UNSET,
    epochs=2,
    batch=32,
    micro_batch=32,
    lr=3e-4,
    max_length=MAX_PROMPT_TOKENS + MAX_RESPONSE_TOKENS,
    nproc=1,
    device="cpu",
    dtype="float32",
    time_limit_s=3600.0,
)
_GRPO = GrpoSettings(
    model_path=UNSET,
    train_file=UNSET,
    out_dir=UNSET,
    total_steps=60,
    prompts_per_step=24,
    rollouts=8,
    micro_batch=64,
    lr=3e-4,
    lr_warmup_steps=5,
    kl_coef=0.0,
    entropy_coef=0.02,
    recompute_log_probs=False,
    temperature=1.0,
    max_prompt_length=MAX_PROMPT_TOKENS,
    max_response_length=MAX_RESPONSE_TOKENS,
    num_gpus=1,
    device="cpu",
    dtype="float32",
    filter_groups=True,
    save_freq=10,
    time_limit_s=4 * 3600.0,
)


def _on_cpu(
    *,
    dataset: str,
    policy: Path,
    data: DataSettings,
    distill: DistillSettings = _DISTILL,
    sft: SftSettings = _SFT,
    grpo: GrpoSettings = _GRPO,
) -> PipelineConfig:
    sampling = SamplingParams(temperature=0.0, max_tokens=MAX_RESPONSE_TOKENS)
    return PipelineConfig(
        dataset=dataset,
        kind="mini",
        policy=policy,
        style="nano",
        data=data,
        distill=distill,
        sft=sft,
        grpo=grpo,
        infer=InferSettings(sampling=sampling),
    )
