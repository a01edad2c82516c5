"""Door: the original's command line for inference. See convsearch/cli/infer_door.py."""

import sys
from pathlib import Path

sys.path[0:1] = [str(Path(__file__).parents[1].resolve()), str(Path(__file__).parents[2].resolve())]

from convsearch.cli.infer_door import infer_main  # noqa: E402 - found through the lines above

if __name__ == "__main__":
    infer_main()
