"""`convsearch grpo`: prompts and a retrieval server -> a model trained by rank."""

from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli import options as o
from convsearch.cli.steps import say_device, train_progress
from convsearch.rewards.shapes import RewardShape
from convsearch.train.device import DeviceChoice, Dtype
from convsearch.train.grpo import run_grpo
from convsearch.train.grpo_settings import GrpoSettings
from convsearch.train.preflight.machine import choose_device

HEADINGS = {
    "What is trained": ("model", "train_file", "val_file", "out", "retriever_url"),
    "Steps and batches": (
        *("total_steps", "prompts_per_step", "rollouts", "mini_batch", "micro_batch"),
    ),
    "Learning": (
        *("lr", "lr_warmup_steps", "lr_schedule", "kl_coef", "entropy_coef", "clip_ratio"),
        *("reward", "topk", "filter_groups"),
    ),
    "Sampling and lengths": ("temperature", "max_prompt_length", "max_response_length", "seed"),
    "Machine": ("device", "num_gpus", "dtype", "threads", "time_limit_s"),
    "Checks and records": (
        *("save_freq", "val_freq", "keep_best", "dump_rollouts", "recompute_log_probs"),
    ),
}


def command(
    model: Annotated[Path, typer.Option(help="model to start from, in Hugging Face form")],
    train_file: Annotated[Path, typer.Option(help='Parquet of prompts of "convsearch data"')],
    out: Annotated[Path, typer.Option(help="folder to make; the result is OUT/model")],
    total_steps: Annotated[int, typer.Option(help="updates of the policy")],
    retriever_url: Annotated[
        str, typer.Option(envvar="RETRIEVER_URL", help='server of "convsearch serve"')
    ],
    val_file: Annotated[
        Path | None, typer.Option(help="Parquet of prompts that --val-freq measures the policy on")
    ] = None,
    prompts_per_step: Annotated[
        int, typer.Option(help="different prompts in one step")
    ] = GrpoSettings.prompts_per_step,
    rollouts: Annotated[
        int, typer.Option(help="responses to each prompt, compared with each other")
    ] = GrpoSettings.rollouts,
    mini_batch: Annotated[
        int, typer.Option(help="prompts in one update, 0 for all of a step")
    ] = GrpoSettings.mini_batch,
    micro_batch: Annotated[
        int,
        typer.Option(
            help="responses in one forward pass of one process; it divides those of an update"
        ),
    ] = GrpoSettings.micro_batch,
    lr: Annotated[float, typer.Option(help="peak learning rate of AdamW")] = GrpoSettings.lr,
    lr_warmup_steps: Annotated[
        int, typer.Option(help="updates in which the rate rises")
    ] = GrpoSettings.lr_warmup_steps,
    lr_schedule: Annotated[
        str, typer.Option(help="the rate after that: constant, or cosine, which falls to 0")
    ] = GrpoSettings.lr_schedule,
    kl_coef: Annotated[
        float, typer.Option(help="weight of the divergence from the first model; 0 for none")
    ] = GrpoSettings.kl_coef,
    entropy_coef: Annotated[
        float, typer.Option(help="weight of the entropy of the responses in the loss; 0 for none")
    ] = GrpoSettings.entropy_coef,
    clip_ratio: Annotated[
        float,
        typer.Option(help="PPO's clip: how far the ratio of new to old probability may leave 1"),
    ] = GrpoSettings.clip_ratio,
    temperature: Annotated[
        float, typer.Option(help="temperature of the sampled responses; 1 is the model itself")
    ] = GrpoSettings.temperature,
    max_prompt_length: Annotated[
        int, typer.Option(help="most tokens of a prompt; a longer one loses its oldest turns")
    ] = GrpoSettings.max_prompt_length,
    max_response_length: Annotated[
        int, typer.Option(help="most tokens of a response; a longer one is cut there")
    ] = GrpoSettings.max_response_length,
    filter_groups: Annotated[
        bool, typer.Option(help="replace groups of equal rewards by further prompts (DAPO)")
    ] = GrpoSettings.filter_groups,
    topk: Annotated[
        int, typer.Option(help="the server looks for relevant passages down to this rank")
    ] = GrpoSettings.topk,
    reward: Annotated[
        RewardShape, typer.Option(help="how a rank becomes a reward; the paper's is piecewise")
    ] = GrpoSettings.reward,
    device: Annotated[
        DeviceChoice, typer.Option(help="auto: GPUs where there are --num-gpus of them, else cpu")
    ] = "auto",
    num_gpus: Annotated[
        int | None,
        typer.Option(
            help="processes, one a GPU; not given: 8 with cuda, all GPUs with auto, 1 with cpu"
        ),
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
    keep_best: Annotated[
        bool, typer.Option(help="publish the step with the best reward on --val-file")
    ] = GrpoSettings.keep_best,
    dump_rollouts: Annotated[
        bool,
        typer.Option(help="write every response to OUT/rollouts, with query, rank and reward"),
    ] = GrpoSettings.dump_rollouts,
    seed: Annotated[
        int, typer.Option(help="seed of the prompts' order and of the responses")
    ] = GrpoSettings.seed,
    threads: Annotated[
        int, typer.Option(help="cpu: threads of each process, 0 for all cores")
    ] = GrpoSettings.threads,
    time_limit_s: Annotated[
        float, typer.Option(help="the training is stopped after this")
    ] = GrpoSettings.time_limit_s,
    fresh: o.FreshOption = False,
) -> None:
    """Train a model by the rank of the right passage (verl's main_ppo, GRPO, FSDP2)."""
    chosen = choose_device(device, num_gpus, "--num-gpus")
    say_device(chosen)
    on_cpu = chosen.device == "cpu"
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
        lr_schedule=lr_schedule,
        kl_coef=kl_coef,
        entropy_coef=entropy_coef,
        clip_ratio=clip_ratio,
        temperature=temperature,
        max_prompt_length=max_prompt_length,
        max_response_length=max_response_length,
        filter_groups=filter_groups,
        topk=topk,
        reward=reward,
        device=chosen.device,
        num_gpus=chosen.processes,
        dtype=dtype or ("float32" if on_cpu else GrpoSettings.dtype),
        recompute_log_probs=recompute_log_probs,
        save_freq=save_freq,
        val_freq=val_freq,
        keep_best=keep_best,
        dump_rollouts=dump_rollouts,
        seed=seed,
        threads=threads,
        time_limit_s=time_limit_s,
    )
    with train_progress("grpo") as advance:
        target = run_grpo(
            settings,
            retriever_url,
            out / "grpo.log",
            out / "metrics.jsonl",
            advance,
            fresh=fresh,
        )
    typer.echo(f"{target}: trained model; metrics in {out / 'metrics.jsonl'}")
