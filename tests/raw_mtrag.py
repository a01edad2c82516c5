"""A checkout of IBM's repository mt-rag-benchmark in miniature, in exactly the shapes of the real
one."""

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from raw_files import SECRET

from convsearch.data.mtrag_files import DOMAINS

CONVERSATIONS = 5
"""Of each domain; three tasks each, of which the second and third are judged."""
PASSAGES = 30
"""Of each domain; every second one of clapnq and govt has a title."""
TASKS = CONVERSATIONS * 3 * len(DOMAINS)
COUNTS = {
    "num_mtrag_tasks": TASKS,
    "num_mtrag_turns": CONVERSATIONS * 2 * len(DOMAINS),
    "num_mtragun_turns": 2 * len(DOMAINS),
    "num_passages_read": PASSAGES * len(DOMAINS),
}


def passage_id(domain: str, number: int) -> str:
    return f"{domain}_{number:02d}-0-{number}"


def opening(domain: str, number: int) -> str:
    return f"what is {domain} {number}"


def task(conv: str, number: object, questions: list[str], **changes: object) -> str:
    """A line of `reference.jsonl`; labels that are not set are bare NaN."""
    said = [
        {"speaker": speaker, "text": text, "metadata": {"author_id": SECRET}}
        for question in questions[:-1]
        for speaker, text in (("user", question), ("agent", f"answer to {question}"))
    ]
    asked = {"speaker": "user", "text": f"{questions[-1]}\n", "metadata": {"author_id": SECRET}}
    record = {
        "conversation_id": conv,
        "task_id": f"{conv}<::>{number}",
        "task_type": "rag",
        "turn": number,
        "contexts": [{"document_id": "x", "text": SECRET, "feedback": {"relevant": {}}}],
        "input": [*said, asked],
        "targets": [{"speaker": "agent", "text": SECRET}],
        "Multi-Turn": float("nan"),
        "answerability": [SECRET],
        **changes,
    }
    return json.dumps(record)


def write_mtrag(folder: Path) -> Path:
    """The conversations of MTRAG-UN: one that begins as the first of MTRAG does in its domain, one
    of its own, and one without a relevant passage."""
    human, un = folder / "mtrag-human", folder / "mtragun-human"
    tasks, un_tasks = [], []
    for domain in DOMAINS:
        rows, rewrites, un_rows = [], [], []
        for number in range(CONVERSATIONS):
            conv = f"{domain}{number}"
            questions = [opening(domain, number), f"how is it {number}?", f"and why {number}?"]
            tasks += [task(conv, turn, questions[:turn]) for turn in (1, 2, 3)]
            for turn in (2, 3):
                qid = f"{conv}<::>{turn}"
                rows += [(qid, passage_id(domain, number + 5 * i), 1) for i in range(turn - 1)]
                rewrites.append({"_id": qid, "text": f"|user|: How is {domain} {number}{turn}?"})
        for name, first in (("u", f"What is {domain} 0 ?"), ("v", "my own"), ("w", "no answer")):
            un_tasks.append(task(f"{name}{domain}", "2", [first, "is it unclear?"]))
            if name != "w":
                un_rows.append((f"{name}{domain}<::>2", passage_id(domain, 20), 1))
        judged = human / "retrieval_tasks" / domain
        _tsv(judged / "qrels" / "dev.tsv", rows)
        _lines(judged / f"{domain}_rewrite.jsonl", map(json.dumps, rewrites))
        _tsv(un / "retrieval_tasks" / "qrels" / f"{domain}.tsv", un_rows)
        write_mtrag_corpus(folder, domain, mtrag_passages(domain))
    _lines(human / "generation_tasks" / "reference.jsonl", tasks)
    _lines(un / "generation_tasks" / "reference.jsonl", un_tasks)
    return folder


def mtrag_passages(domain: str) -> list[dict[str, object]]:
    has_titles = domain in ("clapnq", "govt")
    return [
        {
            "_id": passage_id(domain, number),
            "url": "",
            "text": f"\nText {number} of {domain}.",
            "title": f"Page {number % 5}" if has_titles else "",
        }
        for number in range(PASSAGES)
    ]


def write_mtrag_corpus(folder: Path, domain: str, passages: Iterable[Mapping[str, object]]) -> Path:
    """Zipped on a Mac, which adds a shadow of each file."""
    path = folder / "corpora" / "passage_level" / f"{domain}.jsonl.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"__MACOSX/._{domain}.jsonl", b"\0\1")
        archive.writestr(f"{domain}.jsonl", "".join(f"{json.dumps(each)}\n" for each in passages))
    return path


def _tsv(path: Path, rows: Iterable[tuple[str, str, int]]) -> None:
    head = ("query-id", "corpus-id", "score")
    _lines(path, ("\t".join(map(str, row)) for row in (head, *rows)))


def _lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
