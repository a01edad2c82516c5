"""What a missing package is told by: the command that installs it where the code runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import convsearch.errors
from convsearch.errors import install_command

ROOT = Path(__file__).parents[2]
INSTALLED = "pip install 'convsearch["


def test_a_checkout_is_installed_from_itself() -> None:
    assert install_command("vllm") == f"pip install -e '.[vllm]' in {ROOT}"


def test_a_package_is_installed_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "site-packages" / "convsearch"
    folder.mkdir(parents=True)
    shutil.copy(convsearch.errors.__file__, folder / "errors.py")
    program = "import errors; print(errors.install_command('vllm'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env={}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"{INSTALLED}vllm]'"


def test_no_other_place_names_the_command() -> None:
    named = [
        path.relative_to(ROOT)
        for room in ("src", "retriever_server", "verl")
        for path in (ROOT / room).rglob("*.py")
        if INSTALLED in path.read_text(encoding="utf-8")
    ]
    assert named == [Path("src/convsearch/errors.py")]
