"""Whether the sizes of a step divide as the trainer needs it, in the words of the command line."""

from convsearch.errors import ConfigError


def check_grpo_batches(
    *, prompts_per_step: int, rollouts: int, mini_batch: int, micro_batch: int, num_gpus: int
) -> None:
    """Raises ConfigError where micro batches do not divide one process's responses of an update.

    The arguments are the fields of GrpoSettings.
    """
    prompts = mini_batch or prompts_per_step
    name = "--mini-batch" if mini_batch else "--prompts-per-step"
    responses = prompts * rollouts // num_gpus
    if responses % micro_batch:
        raise ConfigError(
            f"--micro-batch {micro_batch} (grpo.micro_batch) does not divide the {responses} "
            f"responses of an update on one process ({name} {prompts} x --rollouts {rollouts} / "
            f"--num-gpus {num_gpus}); take --micro-batch {largest_divisor(responses, micro_batch)}"
        )


def check_sft_batches(*, batch: int, micro_batch: int, nproc: int) -> None:
    """Raises ConfigError where a batch is not the same number of micro batches on each process.

    The arguments are the fields of SftSettings.
    """
    if batch % nproc:
        raise ConfigError(
            f"--batch {batch} (sft.batch) is not a multiple of --nproc {nproc}; take "
            f"--batch {-(-batch // nproc) * nproc}"
        )
    share = batch // nproc
    if share % micro_batch:
        raise ConfigError(
            f"--micro-batch {micro_batch} (sft.micro_batch) does not divide the {share} examples "
            f"of an update on one process (sft.batch: --batch {batch} / --nproc {nproc}); take "
            f"--micro-batch {largest_divisor(share, micro_batch)}"
        )


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return max(d for d in range(1, min(number, most) + 1) if number % d == 0)
