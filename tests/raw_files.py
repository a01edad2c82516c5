"""Miniature raw files of the published data sets, in exactly the shapes of the real ones."""

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from convsearch.data.raw_turns import Kept, RawSource

SECRET = "SECRET"
"""Stands in every place whose text must never reach a turn."""
PASSAGES = [
    ("1", 'She said "yes" to the ship.', "Mill [SEP] Early years"),
    ("2", "The mill has 4 wheels.", "Mill [SEP] Design"),
    ("3", '"Quoted" from its first word on.', "Song"),
    ("4", "", "Nothing [SEP] here"),
    ("5", "A tower stands by the sea.", "Tower"),
]


def source(folder: Path, **changes: object) -> RawSource:
    """Offline: the files must be there."""
    return RawSource(folder=folder, **{"offline": True, **changes})  # pyright: ignore


def kept(**changes: object) -> Kept:
    return Kept(**changes)  # pyright: ignore[reportArgumentType]


# --- TopiOCQA ------------------------------------------------------------------------------------

TOPIOCQA_COUNTS = {
    "num_raw_train_turns": 5,
    "num_raw_train_conversations": 3,
    "num_raw_test_turns": 2,
    "num_raw_test_conversations": 1,
    "num_passages_read": 5,
}


def topiocqa_turn(conv: int, turn: int, context: list[str], **changes: object) -> dict[str, object]:
    return {
        "Conversation_no": conv,
        "Turn_no": turn,
        "Context": context,
        "Question": f"question {conv} {turn}?",
        "Answer": SECRET,
        "Topic": "Mill" if turn < 3 else "Tower",
        "Topic_section": SECRET,
        "Rationale": SECRET,
        "Additional_answers": [{"Answer": SECRET}],
        "is_nq": False,
        **changes,
    }


def topiocqa_golds(conv: int, turn: int, *ids: object) -> dict[str, object]:
    return {
        "conv_id": conv,
        "turn_id": turn,
        "question": "joined by [SEP]",
        "answers": [SECRET],
        "positive_ctxs": [{"title": SECRET, "text": SECRET, "passage_id": i} for i in ids],
        "negative_ctxs": [],
        "hard_negative_ctxs": [{"title": "t", "text": "x", "passage_id": 4}],
    }


def write_segments(
    path: Path, passages: Sequence[tuple[str, str, str]] = PASSAGES, *, quoted: bool = True
) -> None:
    with path.open("w", encoding="utf-8", newline="") as out:
        if quoted:
            writer = csv.writer(out, delimiter="\t", lineterminator="\n")
            writer.writerows([("id", "text", "title"), *passages])
        else:
            for row in [("id", "text", "title"), *passages]:
                out.write("\t".join(row) + "\n")


def write_topiocqa(folder: Path, *, quoted: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    said = ["question 1 1?", "answer one", "question 1 2?", "answer two"]
    train = [
        topiocqa_turn(1, 1, []),
        topiocqa_turn(1, 2, said[:2]),
        topiocqa_turn(1, 3, said),
        topiocqa_turn(2, 1, []),
        topiocqa_turn(3, 1, ["odd one out"]),
    ]
    golds = [
        topiocqa_golds(1, 1, "1"),
        topiocqa_golds(1, 2, 2, 1),
        topiocqa_golds(1, 3, "5"),
        topiocqa_golds(2, 1, "wiki:3"),
        topiocqa_golds(3, 1, "2"),
    ]
    dev = [topiocqa_turn(1, 1, []), topiocqa_turn(1, 2, said[:2]), topiocqa_turn(1, 3, said)]
    dev_golds = [topiocqa_golds(1, 1, 3), topiocqa_golds(1, 2), topiocqa_golds(1, 3, 5)]
    for name, records in {
        "topiocqa_train.json": train,
        "topiocqa_dev.json": dev,
        "retriever_all_history_train.json": golds,
        "retriever_all_history_dev.json": dev_golds,
    }.items():
        (folder / name).write_text(json.dumps(records, indent=1))
    write_segments(folder / "full_wiki_segments.tsv", quoted=quoted)
    return folder


# --- QReCC ---------------------------------------------------------------------------------------

QRECC_COUNTS = {"num_raw_train_turns": 3, "num_raw_test_turns": 2, "num_passages_read": 7}


def qrecc_turn(conv: int, turn: int, *golds: str, **changes: object) -> dict[str, object]:
    return {
        "Conversation_no": conv,
        "Turn_no": turn,
        "Context": [],
        "Question": f"question {conv} {turn}?",
        "Truth_rewrite": f"human {SECRET} {conv} {turn}",
        "Truth_passages": list(golds),
        "Truth_answer": f"answer {conv} {turn}",
        "Answer_URL": SECRET,
        "Conversation_source": "trec",
        "Transformer_rewrite": SECRET,
        **changes,
    }


QRECC_MEMBERS = {
    "collection-paragraph/wayback-backfill/b.jsonl": [("w3_p0", "backfill")],
    "collection-paragraph/wayback/1.jsonl": [("w1_p0", "first"), ("w1_p1", "")],
    "collection-paragraph/wayback/2.jsonl": [("w2_p0", "second wayback")],
    "collection-paragraph/commoncrawl/x.jsonl": [("c1_p0", "crawl"), ("same", "twin one")],
    "collection-paragraph/commoncrawl/a.jsonl": [("same", "twin two")],
    "collection-paragraph/readme.txt": [],
    "collection-paragraph/wayback/": [],
}
"""In the order of the archive, which is not the order of the corpus."""


def write_passages_zip(
    path: Path, members: Mapping[str, list[tuple[str, str]]] = QRECC_MEMBERS
) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, rows in members.items():
            lines = (json.dumps({"id": i, "contents": text}) + "\n" for i, text in rows)
            archive.writestr(name, "".join(lines))


def write_qrecc(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train = [
        qrecc_turn(1, 1, "c1_p0"),
        qrecc_turn(1, 2, Truth_answer=""),
        qrecc_turn(1, 3, "same", "w1_p0"),
        qrecc_turn(7, 1, "w3_p0"),
    ]
    test = [
        qrecc_turn(1, 1, "w2_p0"),
        qrecc_turn(1, 2, "w3_p0", Truth_rewrite=" "),
        qrecc_turn(2, 1),
    ]
    (folder / "scai-qrecc21-training-turns.json").write_text(json.dumps(train))
    (folder / "scai-qrecc21-test-turns.json").write_text(json.dumps(test))
    write_passages_zip(folder / "passages.zip")
    return folder


# --- CAsT ----------------------------------------------------------------------------------------


def cbor(value: object) -> bytes:
    """One value in CBOR, with the shortest head."""
    if isinstance(value, int):
        return _head(0, value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    assert isinstance(value, list)
    return _head(4, len(value)) + b"".join(cbor(item) for item in value)


def _head(kind: int, length: int) -> bytes:
    if length < 24:
        return bytes([kind << 5 | length])
    size = next(n for n in (1, 2, 4, 8) if length < 256**n)
    return bytes([kind << 5 | 24 + (1, 2, 4, 8).index(size)]) + length.to_bytes(size, "big")


def car_bytes(paragraphs: Mapping[str, Sequence[str]]) -> bytes:
    """A TREC CAR file; every second piece of a paragraph is a link."""
    out = cbor(["CAR", [2, ["provenance"]]]) + b"\x9f"
    for raw_id, pieces in paragraphs.items():
        bodies: list[object] = [
            [1, [SECRET, SECRET, ["section"], b"target", piece]] if i % 2 else [0, piece]
            for i, piece in enumerate(pieces)
        ]
        out += cbor([0, raw_id.encode(), bodies])
    return out + b"\xff"


def write_tar(path: Path, mode: str, name: str, content: bytes) -> None:
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


CAST_TOPICS = {
    2019: "evaluation_topics_v1.0.json",
    2020: "2020_manual_evaluation_topics_v1.0.json",
    2021: "2021_manual_evaluation_topics_v1.0.json",
}
CAST_QRELS = {
    2019: "2019qrels.txt",
    2020: "2020qrels.txt",
    2021: "trec-cast-qrels-docs.2021.qrel",
}


def cast_turn(year: int, number: int, **changes: object) -> dict[str, object]:
    turn: dict[str, object] = {"number": number, "raw_utterance": f"question {number}?"}
    if year > 2019:
        turn["manual_rewritten_utterance"] = f"human {SECRET} {number}"
        turn["automatic_rewritten_utterance"] = SECRET
    if year == 2020:
        turn["manual_canonical_result_id"] = f"MARCO_{number}"
    if year == 2021:
        turn |= {"passage": f"answer {number}", "canonical_result_id": SECRET, "passage_id": 7}
    return {**turn, **changes}


def write_cast(folder: Path, year: int) -> Path:
    """One topic of three judged turns and one that nobody judged."""
    folder.mkdir(parents=True, exist_ok=True)
    topic = {"number": 31, "title": SECRET, "description": SECRET}
    topic["turn"] = [cast_turn(year, number) for number in (1, 2, 3, 4)]  # pyright: ignore
    (folder / CAST_TOPICS[year]).write_text(json.dumps([topic]))
    docs = ("KILT_9", "MARCO_D1") if year == 2021 else ("CAR_ab12", "MARCO_2")
    judgements = [
        f"31_1 0 {docs[0]} 3",
        f"31_1 0 {docs[1]} 1",
        f"31_2 Q0 {docs[1]} 1",
        f"31_2 Q0 {docs[0]} 0",
        f"31_3 0 {docs[0]} 0",
    ]
    (folder / CAST_QRELS[year]).write_text("\n".join(judgements) + "\n")
    if year == 2019:
        lines = "".join(f"31_{n}\thuman {SECRET} {n}\n" for n in (1, 2, 3, 4))
        (folder / "evaluation_topics_annotated_resolved_v1.0.tsv").write_text(lines)
    return folder


def write_cast_passages(folder: Path) -> None:
    rows = "".join(f"{n}\tmarco text {n}\n" for n in range(5))
    write_tar(folder / "collection.tar.gz", "w:gz", "collection.tsv", rows.encode())
    car = car_bytes({"ab12": ["The ", "linked", " mill"], "cd34": ["x" * 300]})
    name = "paragraphCorpus/dedup.articles-paragraphs.cbor"
    write_tar(folder / "paragraphCorpus.v2.0.tar.xz", "w:xz", name, car)


# --- catalogues ----------------------------------------------------------------------------------


def write_catalogue(path: Path, sets: Mapping[str, Mapping[str, Mapping[str, object]]]) -> Path:
    """set -> file -> fields of its entry."""
    record = {
        name: {
            "title": name,
            "licence": "none",
            "files": [{"name": file, **fields} for file, fields in files.items()],
        }
        for name, files in sets.items()
    }
    path.write_text(json.dumps(record))
    return path


def plain_catalogue(path: Path) -> Path:
    """The real one without digests and sizes, for files that are not the real ones."""
    from convsearch.data.catalogue import load_catalogue

    return write_catalogue(
        path,
        {
            name: {file.name: {"urls": list(file.urls)} for file in known.files}
            for name, known in load_catalogue().items()
        },
    )
