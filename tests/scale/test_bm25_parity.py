"""Parity with Lucene at full size: minutes on two cores, so it is run by name.

.venv/bin/python -m pytest tests/scale
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lucene_case import LuceneAnalyzer, needs_lucene
from parity import concatenations, differences, list_differences
from synthetic_corpus import Call, SyntheticCorpus

from convsearch.data.pooled import convert_pooled
from convsearch.files import read_jsonl, read_qrels, read_turns
from convsearch.passages import write_passages
from retriever_server.analyzer import Analyzer
from retriever_server.backends.bm25 import Bm25Backend
from retriever_server.backends.lucene import LuceneBackend
from retriever_server.indexing.bm25 import build_bm25_index
from retriever_server.indexing.lucene import build_lucene_index

REAL = Path(__file__).parents[3] / "shared" / "data"
pytestmark = needs_lucene
DATA_SETS = {"topiocqa_pages": (0.9, 0.4), "cqr_default": (0.82, 0.68)}
"""With the k1 and b that the paper has for TopiOCQA and for QReCC."""
REAL_SETS = (*DATA_SETS, "qrecc_answers", "wiki_mini")
SPOKEN = (
    "question", "history", "answer", "answers", "rewrite", "chatgpt_rewrite",
    "chatgpt_editor_rewrite", "gold_page", "section",
)  # fmt: skip
"""Fields with text, of records that are no passages."""
BATCH = 10_000
"""Texts of one call into Java."""


def _engines(corpus: Path, k1: float, b: float) -> tuple[LuceneBackend, Bm25Backend]:
    lucene, bm25 = corpus.with_name("lucene"), corpus.with_name("bm25")
    build_lucene_index(corpus, lucene, k1=k1, b=b)
    build_bm25_index(corpus, bm25, k1=k1, b=b)
    return LuceneBackend.load(lucene), Bm25Backend.load(bm25)


def test_two_hundred_thousand_synthetic_passages(tmp_path: Path) -> None:
    corpus = SyntheticCorpus(200_000)
    write_passages(tmp_path / "corpus.jsonl", corpus.passages())
    engines = _engines(tmp_path / "corpus.jsonl", 0.9, 0.4)
    call = corpus.call(3_000)
    assert differences(*engines, call) == []
    assert list_differences(*engines, call.queries[:300]) == []


@pytest.fixture(scope="module", params=sorted(DATA_SETS))
def data_set(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not REAL.is_dir():
        pytest.skip(f"real data absent: {REAL} is not there")
    out = tmp_path_factory.mktemp("data") / request.param
    convert_pooled(REAL / request.param, out)
    return out


@pytest.mark.real_data
def test_real_questions_histories_and_concatenations(data_set: Path) -> None:
    engines = _engines(data_set / "corpus.jsonl", *DATA_SETS[data_set.name])
    qrels = read_qrels(data_set / "qrels.trec")
    turns = read_turns(data_set / "turns.jsonl", split="dev")
    golds = [[doc for doc, relevance in qrels[turn.qid].items() if relevance] for turn in turns]
    questions = [turn.question for turn in turns]
    for queries in (questions, [turn.history_query for turn in turns]):
        assert differences(*engines, Call(queries=queries, golds=golds)) == []
    long = concatenations([turn.history_query for turn in turns], 400)
    assert differences(*engines, Call(queries=long, golds=golds[: len(long)])) == []
    assert list_differences(*engines, [*questions[:100], *long[:20]]) == []


@pytest.mark.real_data
def test_the_analyzer_gives_lucenes_terms_on_all_real_texts() -> None:
    texts = list(dict.fromkeys(_real_texts()))
    if not texts:
        pytest.skip(f"real data absent: {REAL} is not there")
    if all((REAL / name).is_dir() for name in REAL_SETS):
        assert len(texts) >= 100_000, "the aim of the project"
    ours, lucene = Analyzer(), LuceneAnalyzer()
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        for text, expected in zip(batch, lucene(batch), strict=True):
            assert ours(text) == expected, text


def _real_texts() -> Iterator[str]:
    """Passages as they are indexed; what was asked, answered and rewritten; names of pages."""
    for path in sorted(REAL.glob("*/*.jsonl.gz")):
        for _, record in read_jsonl(path):
            if path.name.startswith("corpus"):
                yield f"{record.get('title', '')} {record['text']}".lstrip()
            else:
                yield from _strings([record.get(name) for name in SPOKEN])


def _strings(value: object) -> Iterator[str]:
    """Of a field: its text, those of a list, those of the messages of a history."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one["text"] if isinstance(one, dict) else one)
