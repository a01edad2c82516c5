"""What is looked at before a trainer starts, in seconds: each of these would end it after minutes.

`check_grpo` and `check_sft` give back the settings that the trainer gets: the same ones, but for a
training file whose rows had to be read from another form or cut.
"""

from convsearch.train.preflight.start import check_grpo, check_run, check_sft

__all__ = ["check_grpo", "check_run", "check_sft"]
