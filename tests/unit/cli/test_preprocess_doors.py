"""The original's preprocessing by its flags: rows as verl reads them, held out by conversation."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from raw_files import SECRET, TOPIOCQA_COUNTS, kept, source, write_topiocqa

from convsearch.cli import preprocess_doors as doors
from convsearch.data.topiocqa import convert_topiocqa

ROOT = Path(__file__).parents[3]


def line(name: str, conv: int, turn: int, **changes: object) -> dict[str, object]:
    said = [f"{'question' if i % 2 == 0 else 'answer'} {i}" for i in range(2 * (turn - 1))]
    passages = [{"passage_id": "7", "title": SECRET, "text": SECRET}, {"passage_id": 8}]
    record = {"qid": f"{name}_{conv}_{turn}", "question": f"ask {turn}?", "context": said}
    record |= {"positive_ctxs": passages, "topic": SECRET}
    return {**record, **changes}


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def rows_of(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()


@pytest.fixture
def original(tmp_path: Path) -> list[str]:
    train = [line("topiocqa-train", conv, turn) for conv in (1, 2, 3, 4) for turn in (1, 2)]
    test = [line("topiocqa-dev", 1, 1)]
    return [
        "--train_path", str(write(tmp_path / "train.json", train)),
        "--test_path", str(write(tmp_path / "dev.json", test)),
        "--local_dir", str(tmp_path / "made"),
    ]  # fmt: skip


def test_rows_of_the_originals_files(tmp_path: Path, original: list[str]) -> None:
    doors.topiocqa_main([*original, "--validation_share", "0.25"])
    train, val, test = (
        rows_of(tmp_path / "made" / f"{n}.parquet") for n in ("train", "val", "test")
    )
    assert (len(train), len(val), len(test)) == (6, 2, 1)
    assert sorted(train[0]) == ["ability", "data_source", "extra_info", "prompt", "reward_model"]
    assert test[0]["data_source"] == "topiocqa"
    assert test[0]["reward_model"] == {"style": "rule", "ground_truth": ["7", "8"]}
    info = test[0]["extra_info"]
    assert isinstance(info, dict)
    assert list(info) == ["split", "index", "answer", "question", "query_id"]
    assert (info["answer"], info["query_id"]) == ("", "topiocqa-dev_1_1")
    assert SECRET not in json.dumps([train, val, test])
    conversations = [
        {str(row["extra_info"]["query_id"]).rpartition("_")[0] for row in rows}  # pyright: ignore
        for rows in (train, val)
    ]
    assert not conversations[0] & conversations[1]


def test_switches_of_the_original(tmp_path: Path, original: list[str]) -> None:
    doors.topiocqa_main([*original, "--gold", "first", "--validation_share", "0"])
    assert not (tmp_path / "made" / "val.parquet").exists()
    rows = rows_of(tmp_path / "made" / "train.parquet")
    assert {tuple(row["reward_model"]["ground_truth"]) for row in rows} == {("7",)}  # pyright: ignore


def test_qrecc_keeps_its_names(tmp_path: Path) -> None:
    record = line("QReCC-Train", 1, 2, truth_passages=["3", "4"])
    del record["positive_ctxs"]
    path = str(write(tmp_path / "t.json", [record]))
    arguments = ["--train_path", path, "--test_path", path, "--local_dir", str(tmp_path)]
    doors.qrecc_main(arguments)
    (row,) = rows_of(tmp_path / "train_v3.parquet")
    assert row["reward_model"] == {"style": "rule", "ground_truth": ["3", "4"]}
    assert (tmp_path / "test_v3.parquet").is_file()


def test_a_data_set_folder_instead(tmp_path: Path) -> None:
    raw = write_topiocqa(tmp_path / "raw")
    settings = kept(expected=tuple(TOPIOCQA_COUNTS.items()), validation_share=0.4)
    convert_topiocqa(source(raw), tmp_path / "set", settings)
    out = str(tmp_path / "made")
    doors.topiocqa_main(["--dataset", str(tmp_path / "set"), "--local_dir", out])
    made = {p.stem: len(rows_of(p)) for p in (tmp_path / "made").iterdir()}
    assert sum(made.values()) == 7
    assert set(made) == {"train", "val", "test"}


def test_fine_tuning_rows_never_overlap_with_their_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"reasoning_content": " because ", "rewrite": " full query "}
    records = [line("t", conv, 2, **told) for conv in range(20)]
    records.append(line("t", 99, 1, reasoning_content="x", rewrite="a </rewrite> b"))
    path = write(tmp_path / "self.jsonl", records)
    doors.qrecc_sft_main(["--file_path", str(path), "--local_dir", str(tmp_path)])
    train = rows_of(tmp_path / "train_self.parquet")
    test = rows_of(tmp_path / "test_self.parquet")
    assert (len(train), len(test)) == (19, 1)
    messages = train[0]["messages"]
    assert isinstance(messages, list)
    assert messages[-1] == {
        "role": "assistant",
        "content": "<think>because</think>\n<rewrite>full query</rewrite>",
    }
    ids = [{row["extra_info"]["query_id"] for row in rows} for rows in (train, test)]  # pyright: ignore
    assert not ids[0] & ids[1]
    assert "malformed: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([{"question": "x?"}], 'field "context" is missing'),
        ([line("t", 1, 1), line("t", 1, 1)], "'t_1_1' occurs twice"),
        ([line("t", 1, 1, positive_ctxs=[])], "no relevant passage"),
        ([], "no turns"),
    ],
)
def test_bad_files_are_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    records: list[dict[str, object]],
    told: str,
) -> None:
    path = str(write(tmp_path / "t.json", records))
    with pytest.raises(SystemExit) as ended:
        doors.topiocqa_main(["--train_path", path, "--test_path", path])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_what_a_fine_tuning_door_needs_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        doors.qrecc_sft_main(["--file_path", str(tmp_path / "none.jsonl")])
    assert ended.value.code == 2
    assert 'with --file_path: "convsearch hub download sft"' in capsys.readouterr().err
    path = str(write(tmp_path / "t.json", [line("t", 1, 1)]))
    with pytest.raises(SystemExit):  # nobody learns rewriting from the prompt of another task
        doors.topiocqa_main(["--train_path", path, "--test_path", path, "--prompt", "cot"])
    assert "invalid choice: 'cot'" in capsys.readouterr().err


def test_the_script_is_found_from_anywhere(tmp_path: Path) -> None:
    script = ROOT / "verl" / "examples" / "data_preprocess" / "topiocqa.py"
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--dataset" in done.stderr
