"""Open files, and the connections that fit beside them."""

import subprocess
import sys

import pytest

from convsearch.network.limits import OWN_FILES, room_for_connections

PROGRAM = """
import resource
from convsearch.network.limits import raise_file_limit, room_for_connections
found = raise_file_limit()
print(found, resource.getrlimit(resource.RLIMIT_NOFILE)[0], room_for_connections(4096, found))
"""


def test_the_soft_limit_becomes_the_hard_one() -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no such limit")
    shell = ["bash", "-c", 'ulimit -Sn 200; ulimit -Hn 900; exec "$0" "$@"']
    done = subprocess.run(
        [*shell, sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    found, soft, room = map(int, done.stdout.split())
    assert found == soft == 900
    assert 512 < room < 900 - OWN_FILES


def test_room_has_both_ends() -> None:
    assert room_for_connections(100, 20_000) == 100
    assert room_for_connections(4096, 64) == 16
