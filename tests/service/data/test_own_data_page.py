"""docs/own-data.md does what it says: its files and its commands, word for word."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from convsearch.cli.main import main

PAGE = Path(__file__).parents[3] / "docs" / "own-data.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def test_files_and_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("conversations.jsonl", "passages.jsonl")
    for name, text in zip(names, blocks("json"), strict=True):
        Path(name).write_text(text)
    (commands,) = blocks("bash")
    for line in commands.splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, line
    mrr = {}
    for query in ("raw", "history"):
        written = json.loads(Path(f"eval-{query}", "metrics.json").read_text())
        assert written["num_queries"] == 2
        mrr[query] = written["metrics"]["mrr"]
    assert mrr["raw"] < mrr["history"]
