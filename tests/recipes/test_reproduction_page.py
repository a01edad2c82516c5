"""docs/reproduction.md names tests that exist; two of the defects it lists are kept out here."""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

from convsearch.cli import eval_doors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def names_in(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_the_page_names_many_tests() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_what_the_page_names_exists(file: str) -> None:
    wanted = {name for path, name in NAMED if path == file}
    missing = wanted - names_in(ROOT / file)
    assert not missing


def test_paths_on_the_page_exist() -> None:
    for path in re.findall(r"`((?:benchmarks|docs)/[\w/.]+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_long_conversations_are_cut_and_not_dropped(tmp_path: Path) -> None:
    """What the recipe tells verl, and what verl does if it is told nothing."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    script = ROOT / "verl" / "examples" / "grpo_trainer" / "nano_cpu.sh"
    env = {**os.environ, "DRY_RUN": "1", "MODEL": "m", "OUT": str(tmp_path)}
    done = subprocess.run(["bash", script], env=env, capture_output=True, text=True, check=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("data.")]
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=told)
    assert config.data.custom_cls.name == "PromptRows"  # oldest turns first
    assert config.data.truncation == "error"
    assert config.data.filter_overlong_prompts is False


def test_switches_take_no_word(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--index_dir_path", "i", "--query_file", "q", "--gold_qrel_file_path", "g"]
    flags += ["--retrieval_output_path", "o", "--paper_compat", "False"]
    with pytest.raises(SystemExit) as ended:
        eval_doors.bm25_main(flags)
    assert ended.value.code == 2
    assert "unrecognized arguments: False" in capsys.readouterr().err
