"""Who may listen where, which keys are keys, which indexes fit, and what fits into memory."""

import gc
from pathlib import Path

import pytest

from convsearch.errors import ConfigError
from retriever_server import memory
from retriever_server.flags import named_indexes, parser, settings_of
from retriever_server.loading import load_backend
from retriever_server.manifest import write_manifest
from retriever_server.server import spare_the_collector
from retriever_server.settings import IndexSettings, ServerSettings


def test_the_key_is_not_shown() -> None:
    assert "hush" not in repr(ServerSettings(index_path=Path("i"), api_key="hush"))


def test_several_indexes_by_name() -> None:
    line = "--index train=a --index test=b --qrels test=q --encoder train=e --port 1"
    settings = settings_of(parser().parse_args(line.split()))
    assert (settings.name, settings.index_path) == ("train", Path("a"))
    assert (settings.trec_path, settings.encoder_path) == (None, Path("e"))
    assert settings.further == {
        "test": IndexSettings(index_path=Path("b"), trec_path=Path("q"), encoder_path=None)
    }
    settings = settings_of(parser().parse_args(["--index_path", "a", "--index", "test=b"]))
    assert (settings.name, [*settings.further]) == ("default", ["test"])


@pytest.mark.parametrize(
    ("indexes", "qrels", "sentence"),
    [
        (["a", "b"], [], "give each index one path"),
        (["x=a", "x=b"], [], "give each index one path"),
        (["=a"], [], "give each index one path"),
        (["x="], [], "give each index one path"),
        (["x=a"], ["y=q"], "there is no --index y=FOLDER"),
        (["x=a"], ["q"], "there is no --index default=FOLDER"),
    ],
)
def test_indexes_that_do_not_fit_are_named(
    indexes: list[str], qrels: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        named_indexes(indexes, qrels, [])


def test_settings_that_make_no_sense() -> None:
    for values in ({"deadline_s": 0.0}, {"max_in_flight": 0}):
        with pytest.raises(ConfigError, match="must be above 0"):
            ServerSettings(index_path=Path("i"), **values)
    with pytest.raises(ConfigError, match="called 'default'"):
        ServerSettings(
            index_path=Path("i"), further={"default": IndexSettings(index_path=Path("j"))}
        )


def test_too_much_is_refused_with_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 40_000_000_000)
    memory.check_memory("the index", 40_000_000_000)
    with pytest.raises(ConfigError, match="the index needs 79 GB, 40 GB free; free some memory"):
        memory.check_memory("the index", 79_000_000_000)


def test_the_free_memory_is_that_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUP_1", tmp_path / "none")
    monkeypatch.setattr(memory, "_CGROUP_2", tmp_path)
    assert memory.free_bytes() > 1_000_000
    files = {"memory.max": "max", "memory.current": "400", "memory.stat": "anon 7\nactive_file 50"}
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert memory.free_bytes() > 1_000_000
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory.free_bytes() == 650


def test_an_index_is_weighed_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path, "bm25", {})
    (tmp_path / "passages.jsonl").write_bytes(b"x" * 10_000_000)
    (tmp_path / "weights.npy").write_bytes(b"x" * 2_000_000)
    assert 2_000_000 <= memory.index_bytes(tmp_path) < 2_100_000
    monkeypatch.setattr(memory, "free_bytes", lambda: 1_000_000)
    with pytest.raises(ConfigError, match=r"\(bm25\) needs 0\.002 GB, 0\.001 GB free"):
        load_backend(IndexSettings(index_path=tmp_path))


def test_the_collector_does_not_visit_what_is_loaded() -> None:
    thresholds, visited = gc.get_threshold(), len(gc.get_objects())
    try:
        spare_the_collector()
        assert gc.get_freeze_count() > 1000
        assert len(gc.get_objects()) < visited / 10
        assert gc.get_threshold()[0] > thresholds[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def test_verify_is_for_every_index() -> None:
    named = ["--index", "a=x", "--index", "b=y"]
    plain = settings_of(parser().parse_args(named))
    verified = settings_of(parser().parse_args([*named, "--verify"]))
    assert [plain.verify, plain.further["b"].verify] == [False, False]
    assert [verified.verify, verified.further["b"].verify] == [True, True]
