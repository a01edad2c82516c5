"""Imports point inward, and the inner rooms need nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "src" / "convsearch"
RINGS = {
    "types": 0,
    "errors": 0,
    "texts": 1,
    "trec": 1,
    "named_paths": 1,
    "visible": 0,
    "files": 1,
    "passages": 1,
    "passage_forms": 1,
    "tables": 1,
    "passport": 1,
    "made": 1,
    "listening": 1,
    "socket_folders": 1,
    "network": 1,
    "prompts": 1,
    "rewards": 1,
    "eval": 1,
    "data": 2,
    "retrieval": 2,
    "hub": 2,
    "agent": 2,
    "distill": 3,
    "episodes": 3,
    "infer": 3,
    "train": 3,
    "nano": 3,
    "pipeline": 4,
    "report": 4,
    "serving": 4,
    "cli": 5,
}
"""Who may import whom: a room imports rooms of its own ring or of a lower one."""
HEAVY = (
    "torch", "transformers", "vllm", "faiss", "verl", "ray", "numba", "matplotlib", "fastapi",
    "uvicorn", "sentence_transformers", "pyarrow", "pandas", "huggingface_hub",
)  # fmt: skip
OUTSIDE = ("retriever_server", "convsearch_verl")
"""Our packages that stand beside the library and import it."""


def modules() -> list[Path]:
    return sorted(path for path in LIBRARY.rglob("*.py") if path.parent != LIBRARY) + sorted(
        path for path in LIBRARY.glob("*.py") if path.name != "__init__.py"
    )


def room(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> list[tuple[str, bool]]:
    """(module, whether the import stands inside a function or a TYPE_CHECKING block)."""
    found = []

    def visit(node: ast.AST, deferred: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, deferred))
            found.extend((f"{node.module}.{alias.name}", deferred) for alias in node.names)
        inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        inside = inside or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, False)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(LIBRARY)))
def test_imports_point_inward(path: Path) -> None:
    assert room(path) in RINGS, f"room {room(path)!r} has no ring; give it one here"
    ring = RINGS[room(path)]
    for module, _ in imported(ast.parse(path.read_text(encoding="utf-8"))):
        parts = module.split(".")
        if parts[0] == "convsearch" and len(parts) > 1 and parts[1] in RINGS:
            assert RINGS[parts[1]] <= ring, f"{path.name} (ring {ring}) imports {module}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(LIBRARY)))
def test_packages_beside_the_library_are_imported_late_and_from_the_outer_rings(path: Path) -> None:
    for module, deferred in imported(ast.parse(path.read_text(encoding="utf-8"))):
        if module.split(".")[0] in OUTSIDE:
            assert deferred, f"{path.name} imports {module} at the top"
            assert RINGS[room(path)] >= 4, f"{path.name} imports {module}"


@pytest.mark.parametrize("place", ["src", "retriever_server", "verl/convsearch_verl"])
def test_http_clients_are_made_in_one_place(place: str) -> None:
    """Others would follow the environment in their own way."""
    clients = LIBRARY / "network" / "clients.py"
    for path in sorted((ROOT / place).rglob("*.py")):
        made = [
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "httpx"
            and node.func.attr in ("Client", "AsyncClient", "get", "post", "request", "stream")
        ]
        assert not made or path == clients, f"{path}: use {clients.name}"


@pytest.mark.parametrize(
    "names",
    [
        "convsearch.types, convsearch.errors, convsearch.files, convsearch.passport, "
        "convsearch.prompts, convsearch.rewards.rank_incentive, convsearch.eval",
        "convsearch.data.dataset, convsearch.data.mini, convsearch.data.pooled, "
        "convsearch.data.parquet, convsearch.retrieval, convsearch.retrieval.client, "
        "convsearch.retrieval.memory",
        "convsearch.agent, convsearch.agent.search, convsearch.agent.model_squeezer, "
        "convsearch.rewards.search_agent, convsearch.episodes",
        "convsearch.distill, convsearch.infer, convsearch.train.sft, convsearch.train.grpo",
        "convsearch.pipeline.pipeline, convsearch.pipeline.presets, convsearch.report.page, "
        "convsearch.serving.server, convsearch.infer.pool",
        "convsearch.cli.main",
    ],
)
def test_nothing_heavy_is_loaded(names: str) -> None:
    program = (
        f"import sys, {names}\n"
        f"print(*sorted({{m.split('.')[0] for m in sys.modules}} & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_guard_sees_what_it_should() -> None:
    program = "import sys, matplotlib\nprint('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True"
    tree = ast.parse("import a\ndef f():\n    from b import c\n")
    assert imported(tree) == [("a", False), ("b", True), ("b.c", True)]
