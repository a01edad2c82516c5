"""The Triton kernel in Triton's interpreter, and the way back to torch where it does not run."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def _has_triton() -> bool:
    try:
        version("triton")
    except PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    not _has_triton(), reason="triton is not installed: pip install --no-deps triton"
)


def test_kernel_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "dense_triton_cases.py"],
        cwd=TESTS,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_a_device_that_cannot_run_the_kernel_gets_torch(tmp_path: Path) -> None:
    """Compiled Triton refuses a CPU; the filter says so and torch counts."""
    program = (
        "import logging, sys; logging.basicConfig(); from pathlib import Path\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        "from dense_case import hard_values, make_vectors\n"
        "from retriever_server.dense.units import gpu_filter\n"
        f"vectors = make_vectors(Path({str(tmp_path / 'v')!r}), hard_values(50, 8, 'bfloat16'))\n"
        "print(type(gpu_filter(vectors, 'cpu')).__name__)"
    )
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "TorchFilter", done.stderr
    assert "the Triton kernel is not used, it does not run" in done.stderr
