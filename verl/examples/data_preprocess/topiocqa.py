"""Door: the original's preprocessing for verl. See convsearch/cli/preprocess_doors.py."""

import sys
from pathlib import Path

sys.path[0:1] = [str(Path(__file__).parents[3].resolve() / "src")]

from convsearch.cli.preprocess_doors import topiocqa_main  # noqa: E402 - found through the line above

if __name__ == "__main__":
    topiocqa_main()
