"""`convsearch grpo`: prompts and a retrieval server -> a model trained by rank."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli.steps import train_progress
from convsearch.rewards.shapes import RewardShape
from convsearch.train.device import Device, Dtype
from convsearch.train.grpo import GrpoSettings, run_grpo


def command(
    model: Annotated[Path, typer.Option(help="model to start from, in Hugging Face form")],
    train_file: Annotated[Path, typer.Option(help='Parquet of prompts of "convsearch data"')],
    out: Annotated[Path, typer.Option(help="folder to make; the result is OUT/model")],
    total_steps: Annotated[int, typer.Option(help="updates of the policy")],
    retriever_url: Annotated[
        str, typer.Option(envvar="RETRIEVER_URL", help='server of "convsearch serve"')
    ],
    val_file: Annotated[Path | None, typer.Option(help="prompts for validation")] = None,
    prompts_per_step: Annotated[
        int, typer.Option(help="prompts in one step")
    ] = GrpoSettings.prompts_per_step,
    rollouts: Annotated[int, typer.Option(help="responses to a prompt")] = GrpoSettings.rollouts,
    mini_batch: Annotated[
        int, typer.Option(help="prompts in one update, 0 for all of a step")
    ] = GrpoSettings.mini_batch,
    micro_batch: Annotated[
        int, typer.Option(help="responses in one forward pass of one process")
    ] = GrpoSettings.micro_batch,
    lr: Annotated[float, typer.Option(help="learning rate")] = GrpoSettings.lr,
    lr_warmup_steps: Annotated[
        int, typer.Option(help="updates in which the rate rises")
    ] = GrpoSettings.lr_warmup_steps,
    kl_coef: Annotated[
        float, typer.Option(help="weight of the divergence from the first model; 0 for none")
    ] = GrpoSettings.kl_coef,
    entropy_coef: Annotated[
        float, typer.Option(help="weight of the entropy")
    ] = GrpoSettings.entropy_coef,
    clip_ratio: Annotated[float, typer.Option(help="PPO's clip")] = GrpoSettings.clip_ratio,
    temperature: Annotated[float, typer.Option(help="of sampling")] = GrpoSettings.temperature,
    max_prompt_length: Annotated[
        int, typer.Option(help="tokens; a longer prompt loses its beginning")
    ] = GrpoSettings.max_prompt_length,
    max_response_length: Annotated[
        int, typer.Option(help="tokens")
    ] = GrpoSettings.max_response_length,
    topk: Annotated[int, typer.Option(help="depth of the search")] = GrpoSettings.topk,
    reward: Annotated[
        RewardShape, typer.Option(help="how a rank becomes a reward; the paper's is piecewise")
    ] = GrpoSettings.reward,
    device: Annotated[Device, typer.Option(help="where it runs")] = GrpoSettings.device,
    num_gpus: Annotated[
        int | None, typer.Option(help="processes; 8 with cuda and 1 with cpu if not given")
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="bfloat16 with cuda and float32 with cpu if not given")
    ] = None,
    recompute_log_probs: Annotated[
        bool, typer.Option(help="check that policy and rollout hold the same weights")
    ] = GrpoSettings.recompute_log_probs,
    save_freq: Annotated[
        int, typer.Option(help="steps between checkpoints")
    ] = GrpoSettings.save_freq,
    val_freq: Annotated[
        int, typer.Option(help="steps between validations, 0 for none")
    ] = GrpoSettings.val_freq,
    dump_rollouts: Annotated[
        bool, typer.Option(help="write every response to OUT/rollouts, with its query, rank and reward")
    ] = GrpoSettings.dump_rollouts,
    seed: Annotated[
        int, typer.Option(help="of prompts' order and of sampling")
    ] = GrpoSettings.seed,
    threads: Annotated[
        int, typer.Option(help="cpu: threads of each process, 0 for all cores")
    ] = GrpoSettings.threads,
    time_limit_s: Annotated[
        float, typer.Option(help="the training is stopped after this")
    ] = GrpoSettings.time_limit_s,
) -> None:
    """Train a model by the rank of the right passage (verl's main_ppo, GRPO, FSDP2)."""
    on_cpu = device == "cpu"
    settings = GrpoSettings(
        model_path=model,
        train_file=train_file,
        val_file=val_file,
        out_dir=out,
        total_steps=total_steps,
        prompts_per_step=prompts_per_step,
        rollouts=rollouts,
        mini_batch=mini_batch,
        micro_batch=micro_batch,
        lr=lr,
        lr_warmup_steps=lr_warmup_steps,
        kl_coef=kl_coef,
        entropy_coef=entropy_coef,
        clip_ratio=clip_ratio,
        temperature=temperature,
        max_prompt_length=max_prompt_length,
        max_response_length=max_response_length,
        topk=topk,
        reward=reward,
        device=device,
        num_gpus=num_gpus or (1 if on_cpu else GrpoSettings.num_gpus),
        dtype=dtype or ("float32" if on_cpu else GrpoSettings.dtype),
        recompute_log_probs=recompute_log_probs,
        save_freq=save_freq,
        val_freq=val_freq,
        dump_rollouts=dump_rollouts,
        seed=seed,
        threads=threads,
        time_limit_s=time_limit_s,
    )
    with train_progress("grpo") as advance:
        target = run_grpo(settings, retriever_url, out / "grpo.log", out / "metrics.jsonl", advance)
    typer.echo(f"{target}: trained model; metrics in {out / 'metrics.jsonl'}")
