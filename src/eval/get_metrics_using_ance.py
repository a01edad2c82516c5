"""Door: the original's command line for dense evaluation. See convsearch/cli/eval_doors.py."""

import sys
from pathlib import Path

sys.path[0:1] = [str(Path(__file__).parents[1].resolve()), str(Path(__file__).parents[2].resolve())]

from convsearch.cli.eval_doors import ance_main  # noqa: E402 - found through the lines above

if __name__ == "__main__":
    ance_main()
