"""Rules of the house that a reader of a single file cannot see broken."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
DOORS = (
    "src/infer/infer.py",
    "src/eval/get_metrics_using_ance.py",
    "src/eval/get_metrics_using_bm25.py",
    "retriever_server/server.py",
    "verl/verl/utils/reward_score/rewrite_r1.py",
    "verl/examples/data_preprocess/topiocqa.py",
    "verl/examples/data_preprocess/topiocqa_sft.py",
    "verl/examples/data_preprocess/qrecc.py",
    "verl/examples/data_preprocess/qrecc_sft.py",
)
MAX_DOOR_LINES = 12
MAX_LINES = 400
SOURCES = ("src", "retriever_server", "verl")
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:work|farm|root|home|tmp)/[\w.]")
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted|download\.pytorch|registry\.npmjs|conda\.anaconda", re.I
)
BROAD_EXCEPT = {
    "retriever_server/shards/line.py": "a shard whose watcher ended would be missing for good",
    "verl/convsearch_verl/hf_cpu.py": "the rollout hands any error to the trainer",
    "verl/convsearch_verl/batch_loop.py": "the store tells the trainer, and `replay` stops the run",
    "verl/convsearch_verl/micro_batch.py": "any error goes to everyone who waits for the batch",
}
"""Where a broad except may end without raising, and why."""
BINARY = {".safetensors", ".png", ".jpg", ".gz", ".bin", ".parquet", ".npy", ".jar"}


def tracked() -> list[Path]:
    """Files of the project: tracked ones, and new ones that git does not ignore."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a git checkout, so there is no list of files")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
        for path in tracked()
        if path.suffix not in BINARY and path != Path(__file__)
    ]


def sources() -> list[Path]:
    return [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_tracked_name_is_a_link() -> None:
    """A link to a virtual environment, added by accident, replaced it in every clone."""
    done = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout, so there is no list of files")
    links = [row.split("\t")[1] for row in done.stdout.splitlines() if row.startswith("120000")]
    assert not links


def code_lines(path: Path) -> int:
    """Lines that hold code: no blanks, no comments, no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines: set[int] = set()
    for node in ast.walk(tree):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not is_docstring:
            lines.add(node.lineno)
            if not hasattr(node, "body"):
                lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


@pytest.mark.parametrize("door", DOORS)
def test_doors_hold_one_call(door: str) -> None:
    path = ROOT / door
    assert path.is_file(), f"{door} is what users call; it must stay"
    if door != "retriever_server/server.py":
        assert len(path.read_text().splitlines()) <= MAX_DOOR_LINES
    assert code_lines(path) <= MAX_LINES


def test_our_verl_folder_does_not_hide_the_upstream_package() -> None:
    assert not (ROOT / "verl" / "__init__.py").exists()
    assert not (ROOT / "verl" / "verl" / "__init__.py").exists()
    program = "import verl; print(verl.__version__, verl.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    version, where = done.stdout.split()
    assert version == "0.9.1"
    assert "site-packages" in where


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES, "split it"
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module begins with its docstring"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_broad_except_that_swallows(path: Path) -> None:
    if str(path.relative_to(ROOT)) in BROAD_EXCEPT:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            names = (
                {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                if node.type
                else {""}
            )
            if names & {"", "Exception", "BaseException"}:
                raises = any(isinstance(n, ast.Raise) for n in ast.walk(node))
                assert raises, f"line {node.lineno}: a broad except must raise again"


def test_no_machine_path_and_no_registry_in_the_project() -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in texts()
        for pattern in (MACHINE_PATH, REGISTRY)
        for match in [pattern.search(text)]
        if match
    ]
    assert found == []


def test_files_are_small_enough_to_clone() -> None:
    big = [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 16_000_000]
    assert big == []


def test_retriever_requirements_equal_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {*extras["retriever"], *extras["lucene"]}
    lines = (ROOT / "requirements_retriever.txt").read_text().splitlines()
    listed = {line.split("#")[0].strip() for line in lines} - {""}
    assert listed == wanted


def test_pins_are_exact_and_doctor_knows_them() -> None:
    from convsearch.cli.checks import PINS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    pinned = dict(line.split("==") for line in extras["train"] if "==" in line)
    assert {name.split("[")[0]: version for name, version in pinned.items()} == PINS


def test_install_script_takes_the_extras_and_pytorch_of_the_project() -> None:
    from convsearch.cli.checks import TORCH

    script = (ROOT / "scripts" / "_env.sh").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    chosen = re.search(r"^EXTRAS=(.*)$", script, re.M)
    torch = re.search(r"^TORCH=torch==(.*)$", script, re.M)
    assert chosen is not None
    assert set(chosen.group(1).split(",")) <= set(extras)
    assert torch is not None
    assert torch.group(1) in TORCH


def test_ci_runs_the_developers_command() -> None:
    assert "scripts/test.sh" in (ROOT / ".ci" / "run").read_text()
