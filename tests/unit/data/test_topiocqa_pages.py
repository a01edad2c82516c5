"""TopiOCQA over whole pages: the turns, every passage of their pages, a sample of the others."""

import json
from pathlib import Path

import pytest
from raw_files import SECRET, kept, source, topiocqa_turn, write_segments, write_topiocqa

from convsearch.data.dataset import load_dataset
from convsearch.data.topiocqa_pages import PageSettings, convert_topiocqa_pages
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.passages import iter_passages

PASSAGES = [
    ("1", "A pond.", "Pond [SEP] Introduction"),
    ("2", 'She said "yes" to the ship.', "Mill [SEP] Early years"),
    ("3", "A mill stands on a hill.", "Millstone"),
    ("4", "The mill has 4 wheels.", "Mill [SEP] Design [SEP] Wheels"),
    ("5", "A tower stands by the sea.", "Tower"),
    *((str(n), f"Text {n}.", f"Other {n} [SEP] Introduction") for n in range(6, 106)),
]
EXPECTED = (
    ("num_raw_train_turns", 5),
    ("num_raw_train_conversations", 3),
    ("num_raw_test_turns", 3),
    ("num_raw_test_conversations", 1),
    ("num_passages_read", len(PASSAGES)),
)
MADE = kept(expected=EXPECTED, validation_share=0.3)


def raw_folder(tmp_path: Path, *, quoted: bool = True) -> Path:
    """The relevant passages of `data topiocqa` are not needed, so they are not there."""
    raw = write_topiocqa(tmp_path / "raw")
    for split in ("train", "dev"):
        (raw / f"retriever_all_history_{split}.json").unlink()
    write_segments(raw / "full_wiki_segments.tsv", PASSAGES, quoted=quoted)
    return raw


def convert(raw: Path, out: Path, changes: object = MADE, **settings: object) -> dict[str, int]:
    pages = PageSettings(**settings)  # pyright: ignore[reportArgumentType]
    return convert_topiocqa_pages(source(raw), out, changes, pages)  # pyright: ignore


def ids(out: Path) -> list[str]:
    return [passage.doc_id for passage in iter_passages(out / "corpus.jsonl")]


@pytest.mark.parametrize("quoted", [True, False])
def test_all_passages_of_a_page_are_relevant(tmp_path: Path, quoted: bool) -> None:
    out = tmp_path / "out"
    counts = convert(raw_folder(tmp_path, quoted=quoted), out, others=7)
    data = load_dataset(out)
    assert data.name == "topiocqa-pages"
    assert data.qrels["topiocqa-train_1_2"] == {"2": 1, "4": 1}, "not of Millstone"
    assert data.qrels["topiocqa-train_1_3"] == {"5": 1}
    assert len(data.turns("test")) == 3, "a turn needs no relevant passage of its own"
    assert len({t.conv_id for t in data.turns("dev")}) == 1
    assert data.topic_switches()["topiocqa-train_1_3"] is True
    assert {"2", "4", "5"} < set(ids(out))
    assert ids(out) == sorted(ids(out), key=int), "in the file's order"
    assert (counts["num_passages"], counts["num_page_passages"], counts["num_pages"]) == (10, 3, 2)
    assert counts["num_turns"] == 8
    for name in ("turns.jsonl", "qrels.trec", "turn_info.jsonl", "run.json"):
        assert SECRET not in (out / name).read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw"]


def test_the_sample_depends_on_the_seed_alone_and_grows(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    drawn: dict[tuple[int, int], set[str]] = {}
    for others, seed in ((0, 0), (10, 0), (20, 0), (10, 1), (500, 0)):
        settings = kept(expected=EXPECTED, seed=seed)
        convert(raw, tmp_path / f"{others}-{seed}", settings, others=others)
        drawn[others, seed] = set(ids(tmp_path / f"{others}-{seed}")) - {"2", "4", "5"}
    assert [len(each) for each in drawn.values()] == [0, 10, 20, 10, len(PASSAGES) - 3]
    assert drawn[10, 0] < drawn[20, 0]
    assert drawn[10, 0] != drawn[10, 1]
    turned = raw_folder(tmp_path / "again")
    write_segments(turned / "full_wiki_segments.tsv", PASSAGES[::-1])
    convert(turned, tmp_path / "turned", kept(expected=EXPECTED), others=10)
    assert set(ids(tmp_path / "turned")) - {"2", "4", "5"} == drawn[10, 0]


def test_some_pages_only(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    counts = convert(raw, tmp_path / "out", pages=1, others=0)
    data = load_dataset(tmp_path / "out")
    relevant = {frozenset(golds) for golds in data.qrels.values()}
    assert relevant in ({frozenset({"2", "4"})}, {frozenset({"5"})})
    assert counts["num_turns"] + counts["turns_of_pages_not_drawn"] == 8
    assert counts["num_pages"] == 1


def test_turns_without_a_page_are_counted(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    path = raw / "topiocqa_train.json"
    records = json.loads(path.read_text())
    records[3] = topiocqa_turn(2, 1, [], Topic="Nowhere")
    records[4] = topiocqa_turn(3, 1, [], Topic=None)
    path.write_text(json.dumps(records))
    counts = convert(raw, tmp_path / "out")
    assert (counts["turns_without_page"], counts["turns_of_pages_not_drawn"]) == (2, 0)
    assert counts["num_turns"] == 6


def test_a_number_of_a_turn_that_is_none_is_named(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    path = raw / "topiocqa_train.json"
    records = json.loads(path.read_text())
    records[0]["Turn_no"] = "\u00b2"  # a digit for str.isdigit, and no number for int
    path.write_text(json.dumps(records))
    with pytest.raises(DataError, match='field "Turn_no"'):
        convert(raw, tmp_path / "out")


def test_no_page_at_all_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    write_segments(raw / "full_wiki_segments.tsv", PASSAGES[5:])
    with pytest.raises(DataError, match=r"full_wiki_segments\.tsv: no passage of the page of any"):
        convert(raw, tmp_path / "out", kept(allow_count_mismatch=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("doubled", [2, 7])
def test_an_id_that_occurs_twice_is_an_error(tmp_path: Path, doubled: int) -> None:
    raw = raw_folder(tmp_path)
    write_segments(raw / "full_wiki_segments.tsv", [*PASSAGES, PASSAGES[doubled - 1]])
    with pytest.raises(DataError, match=f"doc_id '{doubled}' occurs twice, first in line"):
        convert(raw, tmp_path / "out", kept(allow_count_mismatch=True), others=1000)


def test_counts_must_be_the_published_ones(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    with pytest.raises(DataError, match="num_raw_train_turns is 5 and should be 45,450"):
        convert(raw, tmp_path / "out", kept())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


def test_the_same_is_kept_and_another_draw_refused(tmp_path: Path) -> None:
    raw, out = raw_folder(tmp_path), tmp_path / "out"
    counts = convert(raw, out, others=5)
    before = (out / "corpus.jsonl").stat().st_mtime_ns
    assert convert(raw, out, others=5) == counts
    assert (out / "corpus.jsonl").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"others \(there 5, now 6\)"):
        convert(raw, out, others=6)


def test_only_the_files_that_are_read_are_asked_for(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path)
    (raw / "topiocqa_dev.json").unlink()
    with pytest.raises(MissingFileError, match=r"topiocqa_dev\.json") as told:
        convert(raw, tmp_path / "out")
    assert "retriever_all_history" not in str(told.value)


@pytest.mark.parametrize("wrong", [{"others": -1}, {"pages": 0}])
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="or more"):
        PageSettings(**wrong)  # pyright: ignore[reportArgumentType]
