"""TREC CAsT: the questions of each year, graded judgements, and collections where asked for."""

import gzip
import json
from pathlib import Path

import pytest
from raw_files import (
    CAST_TOPICS,
    SECRET,
    kept,
    plain_catalogue,
    source,
    write_cast,
    write_cast_passages,
)

from convsearch.data.cast import CastSettings, convert_cast
from convsearch.data.dataset import load_dataset, without_corpus
from convsearch.data.raw_turns import RawSource
from convsearch.errors import ConfigError, DataError
from convsearch.eval.published import published_rows
from convsearch.files import read_rewrites
from convsearch.passages import iter_passages

COUNTS = {
    2019: {"num_raw_turns": 4, "num_judged_turns": 3, "num_judgements": 5},
    2020: {"num_raw_turns": 4, "num_judged_turns": 3, "num_judgements": 5},
    2021: {},
}
EXPECTED = {year: tuple(counts.items()) for year, counts in COUNTS.items()}


@pytest.fixture
def raw(tmp_path: Path) -> RawSource:
    return source(tmp_path / "raw", catalogue=plain_catalogue(tmp_path / "downloads.json"))


@pytest.mark.parametrize("year", [2019, 2020, 2021])
def test_topics_and_judgements_without_the_collection(
    tmp_path: Path, raw: RawSource, year: int
) -> None:
    write_cast(raw.folder, year)
    settings = CastSettings(year=year)  # pyright: ignore[reportArgumentType]
    counts = convert_cast(raw, tmp_path / "out", kept(expected=EXPECTED[year]), settings)
    data = load_dataset(tmp_path / "out")
    assert data.name == f"cast{year}"
    assert [t.qid for t in data.turns("test")] == ["31_1", "31_2"]
    assert set(data.qrels["31_1"].values()) == {3, 1}, "grades are kept"
    assert counts["turns_without_judgement"] == 1
    assert counts["turns_without_gold"] == 1
    history = [m.text for m in data.all_turns[1].history]
    assert history == ["question 1?", "answer 1" if year == 2021 else ""]
    assert not data.corpus_path.exists()
    assert "--with-corpus" in without_corpus(tmp_path / "out")
    rewrites = read_rewrites(tmp_path / "out" / "human_rewrites.jsonl")
    assert [r.text for r in rewrites] == [f"human {SECRET} 1", f"human {SECRET} 2"]
    for name in ("turns.jsonl", "qrels.trec", "run.json"):
        assert SECRET not in (tmp_path / "out" / name).read_text()


def test_grades_are_kept_and_the_published_table_knows_the_name(
    tmp_path: Path, raw: RawSource
) -> None:
    write_cast(raw.folder, 2020)
    settings = CastSettings(year=2020)
    convert_cast(raw, tmp_path / "out", kept(expected=EXPECTED[2020]), settings)
    data = load_dataset(tmp_path / "out")
    grades = [grade for judged in data.qrels.values() for grade in judged.values()]
    assert {0, 1, 3} <= set(grades)
    assert min(grades) == 0
    assert published_rows("table9", data.name, "ance")


def test_passages_of_2020_and_the_answers_in_them(tmp_path: Path, raw: RawSource) -> None:
    write_cast(raw.folder, 2020)
    write_cast_passages(raw.folder)
    settings = CastSettings(year=2020, with_corpus=True)
    convert_cast(raw, tmp_path / "out", kept(expected=EXPECTED[2020]), settings)
    data = load_dataset(tmp_path / "out")
    passages = {p.doc_id: p.text for p in iter_passages(data.corpus_path)}
    assert list(passages) == [*(f"MARCO_{n}" for n in range(5)), "CAR_ab12", "CAR_cd34"]
    assert passages["CAR_ab12"] == "The linked mill"
    assert passages["CAR_cd34"] == "x" * 300
    assert [m.text for m in data.all_turns[1].history] == ["question 1?", "marco text 1"]


def test_near_duplicates_are_left_out(tmp_path: Path, raw: RawSource) -> None:
    write_cast(raw.folder, 2019)
    write_cast_passages(raw.folder)
    listed = tmp_path / "duplicates.txt"
    listed.write_text("MARCO_0:MARCO_1,MARCO_4\nMARCO_3:\n")
    settings = CastSettings(year=2019, with_corpus=True, duplicates=listed)
    expected = (*EXPECTED[2019], ("num_passages_read", 5))
    convert_cast(raw, tmp_path / "out", kept(expected=expected), settings)
    ids = [p.doc_id for p in iter_passages(tmp_path / "out" / "corpus.jsonl")]
    assert ids == ["MARCO_0", "MARCO_2", "MARCO_3", "CAR_ab12", "CAR_cd34"]
    with pytest.raises(DataError, match="should be 38,622,444"):
        convert_cast(raw, tmp_path / "strict", kept(expected=EXPECTED[2019]), settings)


def test_documents_of_2021_with_and_without_the_washington_post(
    tmp_path: Path, raw: RawSource
) -> None:
    write_cast(raw.folder, 2021)
    qrels = raw.folder / "trec-cast-qrels-docs.2021.qrel"
    qrels.write_text(qrels.read_text() + "31_3 0 WAPO_w1 4\n")
    (raw.folder / "msmarco-docs.tsv").write_text("D1\thttp://x\tTitle\tBody of it\n")
    packed = gzip.compress((raw.folder / "msmarco-docs.tsv").read_bytes())
    (raw.folder / "msmarco-docs.tsv.gz").write_bytes(packed)
    page = {"wikipedia_id": "9", "wikipedia_title": "Page", "text": ["One.\n", "Two.\n"]}
    (raw.folder / "kilt_knowledgesource.json").write_text(json.dumps(page) + "\n")
    public = CastSettings(year=2021, with_corpus=True)
    with pytest.raises(DataError, match="'WAPO_w1' of turn '31_3'"):
        convert_cast(raw, tmp_path / "part", kept(), public)
    corpus = tmp_path / "part.partial" / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("Two.", "TWO."))
    part = CastSettings(year=2021, with_corpus=True, allow_missing_gold=True)
    counts = convert_cast(raw, tmp_path / "part", kept(), part)
    assert counts["gold_outside_corpus"] == 1
    assert len(load_dataset(tmp_path / "part").all_turns) == 2
    assert "TWO." in (tmp_path / "part" / "corpus.jsonl").read_text(), "the corpus was not redone"
    article = {"id": "w1", "title": None, "contents": [
        {"subtype": "paragraph", "content": "<p>Fish &amp; <b>ships</b></p>"},
        {"type": "image", "content": SECRET}, None,
    ]}  # fmt: skip
    (tmp_path / "wapo.jl").write_text(json.dumps(article) + "\n")
    whole = CastSettings(year=2021, with_corpus=True, wapo=tmp_path / "wapo.jl")
    convert_cast(raw, tmp_path / "whole", kept(), whole)
    passages = list(iter_passages(tmp_path / "whole" / "corpus.jsonl"))
    assert [(p.doc_id, p.title, p.text) for p in passages] == [
        ("MARCO_D1", "Title", "Body of it"),
        ("KILT_9", "Page", "One. Two."),
        ("WAPO_w1", "", "Fish & ships"),
    ]
    assert len(load_dataset(tmp_path / "whole").all_turns) == 3


def test_wrong_settings_and_wrong_topics_are_named(tmp_path: Path, raw: RawSource) -> None:
    with pytest.raises(ConfigError, match="2019, 2020 or 2021"):
        CastSettings(year=2022)  # pyright: ignore[reportArgumentType]
    write_cast(raw.folder, 2020)
    with pytest.raises(ConfigError, match="add it"):
        convert_cast(raw, tmp_path / "out", kept(), CastSettings(year=2020, wapo=tmp_path / "w"))
    with pytest.raises(DataError, match="num_raw_turns is 4 and should be 216"):
        convert_cast(raw, tmp_path / "out", kept(), CastSettings(year=2020))
    (raw.folder / "downloads.lock.json").unlink()
    (raw.folder / CAST_TOPICS[2020]).write_text('[{"number": 31, "turn": [{"number": 1}]}]')
    with pytest.raises(DataError, match=r'topic 1, turn 1: field "raw_utterance" is missing'):
        convert_cast(raw, tmp_path / "out", kept(), CastSettings(year=2020))
