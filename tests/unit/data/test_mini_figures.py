"""How hard `data/mini` is for BM25. Run as a script it prints the table of data/README.md."""

import sys

import bm25s
import Stemmer

from convsearch.data.mini import MiniData, generate_mini

TOPK = 100


def mini_figures(data: MiniData, split: str) -> dict[str, list[float]]:
    """Reciprocal ranks of the gold passage for three ways to ask, with bm25s.

    raw: the question alone. history: the whole conversation before it. oracle: the question and
    the name of the thing it is about.
    """
    stemmer = Stemmer.Stemmer("porter")

    def tokens(texts: list[str]) -> bm25s.tokenization.Tokenized:
        made = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
        assert isinstance(made, bm25s.tokenization.Tokenized)
        return made

    engine = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    engine.index(tokens([p.contents for p in data.passages]), show_progress=False)
    doc_ids = [p.doc_id for p in data.passages]
    titles = {p.doc_id: p.title for p in data.passages}
    turns = [t for t in data.turns if t.split == split]
    golds = [list(data.qrels[t.qid]) for t in turns]
    queries = {
        "raw": [t.question for t in turns],
        "history": [t.history_query for t in turns],
        "oracle": [f"{t.question} {titles[g[0]]}" for t, g in zip(turns, golds, strict=True)],
    }
    figures = {}
    for name, texts in queries.items():
        hits, scores = engine.retrieve(tokens(texts), k=TOPK, show_progress=False)
        figures[name] = [
            next(
                (
                    1 / rank
                    for rank, (hit, score) in enumerate(zip(row, row_scores, strict=True), 1)
                    if score > 0 and doc_ids[hit] in gold
                ),
                0.0,
            )
            for row, row_scores, gold in zip(hits, scores, golds, strict=True)
        ]
    return figures


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_context_is_needed_and_is_enough() -> None:
    figures = {name: mean(rrs) for name, rrs in mini_figures(generate_mini(), "test").items()}
    assert figures["raw"] < 0.25
    assert figures["oracle"] > 0.8
    assert figures["raw"] + 0.1 < figures["history"] < figures["oracle"] - 0.3


if __name__ == "__main__":
    for way, reciprocal_ranks in mini_figures(generate_mini(), "test").items():
        sys.stdout.write(f"{way:8s} MRR@{TOPK} {mean(reciprocal_ranks):.3f}\n")
