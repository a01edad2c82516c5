"""`verl/examples/data_preprocess/*.py`: training files from a data set folder, or from the
original's own JSON lines, by the original's flags.

Different from the original: validation rows are whole conversations that are not trained on (its
"test" rows for fine-tuning are the first thousand training rows), and `extra_info.answer` is empty.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from convsearch.cli.doors import door_parser, run_door
from convsearch.data.dataset import load_dataset
from convsearch.data.original_files import read_original_sft, read_original_turns
from convsearch.data.raw_turns import DEFAULT_VALIDATION_SHARE, VALIDATION_SPLIT, Kept, hold_out
from convsearch.errors import ConfigError, MissingFileError
from convsearch.files import Qrels
from convsearch.prompts import TRAINED_STYLES
from convsearch.types import Turn


def topiocqa_main(argv: Sequence[str] | None = None) -> None:
    """`topiocqa.py`."""
    _grpo_door("topiocqa", "train.json", "dev.json", "", argv)


def qrecc_main(argv: Sequence[str] | None = None) -> None:
    """`qrecc.py`."""
    _grpo_door("qrecc", "train_v3.json", "test_v3.json", "_v3", argv)


def topiocqa_sft_main(argv: Sequence[str] | None = None) -> None:
    """`topiocqa_sft.py`."""
    _sft_door("topiocqa", argv)


def qrecc_sft_main(argv: Sequence[str] | None = None) -> None:
    """`qrecc_sft.py`."""
    _sft_door("qrecc", argv)


def _grpo_door(name: str, train: str, test: str, suffix: str, argv: Sequence[str] | None) -> None:
    parser = _parser(f"{name}.py", f"Write GRPO training files of {name} for verl.")
    add = parser.add_argument
    add("--local_dir", type=Path, default=Path(f"data/{name}"), help="folder to write")
    add("--dataset", type=Path, help="folder made by convsearch data; instead of the two paths")
    add("--train_path", type=Path, default=Path(f"data/{name}/{train}"), help="original's file")
    add("--test_path", type=Path, default=Path(f"data/{name}/{test}"), help="original's file")
    add("--gold", choices=("all", "first"), default="all", help="first: as the original")
    run_door(lambda: _write_grpo(name, suffix, parser.parse_args(argv)))


def _sft_door(name: str, argv: Sequence[str] | None) -> None:
    parser = _parser(f"{name}_sft.py", f"Write fine-tuning files of {name} for verl.")
    file = Path(f"data/{name}/sft/llama3.2-3b-it_self.jsonl")
    add = parser.add_argument
    add("--local_dir", type=Path, default=Path(f"data/{name}/sft"), help="folder to write")
    add(
        "--file_path",
        type=Path,
        default=file,
        help="lines of question, context, reasoning_content, rewrite",
    )
    run_door(lambda: _write_sft(parser.parse_args(argv)))


def _parser(prog: str, what: str) -> argparse.ArgumentParser:
    parser = door_parser(prog, what)
    add = parser.add_argument
    add("--prompt", choices=TRAINED_STYLES, default="instruct", help="nano: the small policies")
    add("--validation_share", type=float, default=DEFAULT_VALIDATION_SHARE,
        help="share of the training conversations held out")  # fmt: skip
    add("--seed", type=int, default=0, help="of the draw of these")
    return parser


def _write_grpo(name: str, suffix: str, args: argparse.Namespace) -> None:
    from convsearch.data.parquet import write_grpo_parquet

    Kept(validation_share=args.validation_share)
    counts: Counter[str] = Counter()
    turns, qrels = _folder(args) if args.dataset else _original(args, counts)
    for split, file in (("train", "train"), (VALIDATION_SPLIT, "val"), ("test", "test")):
        of_split = [turn for turn in turns if turn.split == split]
        path = args.local_dir / f"{file}{suffix}.parquet"
        if of_split:
            count = write_grpo_parquet(path, of_split, qrels, style=args.prompt, data_source=name)
            print(f"{path}: {count:,} rows")
        else:
            path.unlink(missing_ok=True)
    _tell(counts)


def _folder(args: argparse.Namespace) -> tuple[list[Turn], Qrels]:
    """Turns and judgements of a data set folder; training conversations are held out where it has
    no split `dev` of its own."""
    data = load_dataset(args.dataset)
    turns = list(data.all_turns)
    if args.gold == "first":
        raise ConfigError(
            "--gold first needs the original's files; a data set folder has it from "
            '"convsearch data topiocqa --gold first"'
        )
    if not any(turn.split == VALIDATION_SPLIT for turn in turns):
        turns = hold_out(turns, share=args.validation_share, seed=args.seed)
    return turns, data.qrels


def _original(args: argparse.Namespace, counts: Counter[str]) -> tuple[list[Turn], Qrels]:
    for path in (args.train_path, args.test_path):
        if not path.is_file():
            raise MissingFileError(
                f"{path}: no such file; name a folder made by convsearch data with --dataset, or "
                "the original's files with --train_path and --test_path"
            )
    first = args.gold == "first"
    train, gold = read_original_turns(args.train_path, "train", counts, first_gold_only=first)
    test, test_gold = read_original_turns(args.test_path, "test", counts, first_gold_only=first)
    turns = hold_out(train, share=args.validation_share, seed=args.seed)
    return [*turns, *test], {**gold, **test_gold}


def _write_sft(args: argparse.Namespace) -> None:
    from convsearch.data.parquet import write_sft_parquet

    if not args.file_path.is_file():
        raise MissingFileError(
            f"{args.file_path}: no such file; name a file of self-distilled rewrites with "
            '--file_path: "convsearch hub download sft" fetches those that were published'
        )
    Kept(validation_share=args.validation_share)
    counts: Counter[str] = Counter()
    examples = read_original_sft(args.file_path, counts)
    turns = hold_out([turn for turn, _ in examples], share=args.validation_share, seed=args.seed)
    responses = [response for _, response in examples]
    for split, file in (("train", "train"), (VALIDATION_SPLIT, "test")):
        rows = [pair for pair in zip(turns, responses, strict=True) if pair[0].split == split]
        path = args.local_dir / f"{file}_{args.file_path.stem}.parquet"
        if rows:
            count = write_sft_parquet(path, rows, style=args.prompt)
            print(f"{path}: {count:,} rows")
        else:
            path.unlink(missing_ok=True)
    _tell(counts)


def _tell(counts: Counter[str]) -> None:
    for name, count in counts.items():
        print(f"{name}: {count:,}")
