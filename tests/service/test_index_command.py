"""`convsearch index`: an index of the same is kept, another is refused, `--fresh` replaces it."""

import json
from pathlib import Path

import pytest
from small_corpus import random_passages
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import ConfigError
from convsearch.passages import write_passages


def index(corpus: Path, out: Path, *more: object) -> None:
    words = ["index", "--corpus", corpus, "--out", out, *more]
    CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_an_index_is_kept_refused_or_replaced_by_what_made_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "index"
    write_passages(corpus, random_passages(50))
    index(corpus, out)
    before = state(out)
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(corpus.read_bytes())
    index(moved, out, "--workers", 1)
    assert state(out) == before
    assert "kept: made by the same settings" in caplog.text
    other = tmp_path / "other.jsonl"
    write_passages(other, random_passages(60))
    for words, sentence in (
        ((corpus, out, "--k1", 1.2), r"k1 \(there 0\.9, now 1\.2\)"),
        ((corpus, out, "--b", 0.5), r"b \(there 0\.4, now 0\.5\)"),
        ((other, out), r"corpus_sha256 \(there content"),
    ):
        with pytest.raises(ConfigError, match=rf"was made with other settings: {sentence}"):
            index(*words)
    assert state(out) == before
    (out / "notes.txt").write_text("mine")
    index(other, out, "--fresh")
    assert json.loads((out / "manifest.json").read_text())["num_passages"] == 60
    assert (out / "notes.txt").read_text() == "mine"


def test_a_damaged_index_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "index"
    write_passages(corpus, random_passages(50))
    index(corpus, out)
    table = json.loads((out / "manifest.json").read_text())["files"]
    victim = out / max(table, key=lambda name: table[name]["bytes"])
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    index(corpus, out)
    assert victim.read_bytes() == whole
    assert "damaged" in caplog.text


def test_a_build_begun_with_other_settings_is_refused_and_fresh_forgets_it(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "index"
    write_passages(corpus, random_passages(50))
    (tmp_path / "index.partial").mkdir()
    (tmp_path / "index.partial" / "job.json").write_text('{"k1": 0.7}')
    with pytest.raises(ConfigError, match=r"begun with .*now .*, as --fresh does"):
        index(corpus, out)
    index(corpus, out, "--fresh")
    assert not (tmp_path / "index.partial").exists()
    assert (out / "manifest.json").is_file()
