"""`src/infer/infer.py`: the original's command line for inference."""

import argparse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import cast

from convsearch.cli import options as o
from convsearch.cli.doors import door_parser, run_door
from convsearch.files import read_turns
from convsearch.infer import ENGINES, SamplingParams, infer_rewrites
from convsearch.infer.runner import count_statuses
from convsearch.prompts import PROMPT_STYLES, PromptStyle

ORIGINAL_MAX_TOKENS = 4096
"""Longest response of the original's inference script."""


def infer_main(argv: Sequence[str] | None = None) -> None:
    """`src/infer/infer.py`."""
    parser = door_parser("infer.py", "Rewrite the questions of a turns.jsonl file with a model.")
    add = parser.add_argument
    add("--model_name_or_path", required=True, help="checkpoint folder, or hub name")
    add("--model_name", default="ConvSearch-R1", help="label; nano... selects the nano prompt")
    add("--dp_size", type=int, default=1, help="copies of the model, a process each")
    add("--gpus_per_dp_rank", type=int, default=1, help="GPUs of one copy")
    add("--temperature", type=float, default=0.7, help="0 is greedy")
    add("--input_path", type=Path, required=True, help="turns.jsonl")
    add("--output_path", type=Path, required=True, help="rewrites.jsonl, or a folder for it")
    add("--engine", choices=ENGINES, help="vllm where it is installed, else transformers")
    add("--prompt", choices=PROMPT_STYLES, help="overrides what --model_name selects")
    add("--split", help="only these turns")
    add("--max_tokens", type=int, default=ORIGINAL_MAX_TOKENS, help="longest response")
    add("--batch_size", type=int, help="prompts of one block")
    add("--seed", type=int, default=0, help="same seed, same rewrites")
    add("--fresh", action="store_true", help="start over")
    add("--retry_failed", action="store_true", help="ask again where there was no response")
    run_door(lambda: _infer(parser.parse_args(argv)))


def _infer(args: argparse.Namespace) -> None:
    turns = read_turns(args.input_path, split=args.split)
    out: Path = args.output_path
    if out.suffix not in (".jsonl", ".gz"):
        out = out / "rewrites.jsonl"
    engine = args.engine or ("vllm" if _is_installed("vllm") else "transformers")
    nano = args.model_name.lower().startswith("nano")
    style = cast(PromptStyle, args.prompt or ("nano" if nano else "instruct"))
    params = SamplingParams(temperature=args.temperature, max_tokens=args.max_tokens)
    with (
        o.engine_of(
            engine,
            args.model_name_or_path,
            workers=args.dp_size,
            gpus_per_worker=args.gpus_per_dp_rank,
        ) as opened,
        o.progress_bar("rewriting") as advance,
    ):
        rewrites = infer_rewrites(
            turns,
            opened,
            out_path=out,
            style=style,
            params=params,
            seed=args.seed,
            batch_size=o.batch_size_of(engine, args.batch_size),
            fresh=args.fresh,
            retry_failed=args.retry_failed,
            inputs=[args.input_path],
            on_progress=advance,
        )
    counts = ", ".join(f"{name} {count}" for name, count in count_statuses(rewrites).items())
    o.say(f"{out}: {counts}")


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
