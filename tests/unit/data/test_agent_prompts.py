"""Questions for search agents: the folder of multi-hop questions, and the file to train on."""

import json
from pathlib import Path

import mini_case
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.data.mini.hop_files import write_hops
from convsearch.data.parquet import write_agent_parquet
from convsearch.data.pooled import SPLITS
from convsearch.data.questions import load_questions
from convsearch.errors import DataError
from convsearch.passages import iter_passages
from convsearch.passport import sha256_of
from convsearch.types import Question


@pytest.fixture(scope="module")
def hops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "hops"
    write_hops(folder)
    return folder


def test_the_folder_holds_the_questions_and_the_passages_of_mini(hops: Path) -> None:
    made = mini_case.mini_hops()
    data = load_questions(hops)
    assert list(data.all_questions) == made.questions
    assert data.qrels == made.qrels
    assert list(iter_passages(data.corpus_path)) == mini_case.mini().passages
    files = ["corpus.jsonl", "qrels.trec", "questions.jsonl"]
    assert sorted(path.name for path in hops.iterdir()) == [*files, "run.json"]
    told = json.loads((hops / "run.json").read_text())
    assert told["outputs"] == {name: sha256_of(hops / name) for name in files}
    assert told["counts"]["num_questions"] == sum(told["counts"][f"mini_{s}"] for s in SPLITS)


def test_a_row_for_each_question_of_the_split(hops: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "train.parquet"
    words = ["data", "agent-prompts", "--dataset", str(hops), "--out", str(out)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    data = load_questions(hops)
    questions = data.questions("train")
    rows = pq.read_table(out).to_pylist()
    assert [row["extra_info"]["query_id"] for row in rows] == [q.qid for q in questions]
    row, question = rows[7], questions[7]
    assert row["prompt"] == [{"role": "user", "content": question.question}]
    assert row["agent_name"] == "search_agent"
    assert row["reward_model"]["ground_truth"] == list(question.answers)
    assert row["extra_info"]["golds"] == data.golds(question.qid)
    assert row["extra_info"]["type"] == question.type
    with pytest.raises(DataError, match="nowhere"):
        CliRunner().invoke(app, [*words, "--split", "nowhere", "--fresh"], catch_exceptions=False)


def test_a_question_without_an_answer_is_left_out_and_counted(tmp_path: Path) -> None:
    one, other = (
        Question(qid=q, dataset="d", question="who?", answers=a, type="", split="train")
        for q, a in (("a", ("x",)), ("b", ()))
    )
    path = tmp_path / "t.parquet"
    assert write_agent_parquet(path, [one, other], {}) == 1
    assert pq.read_table(path).to_pylist()[0]["extra_info"]["golds"] == []
    with pytest.raises(DataError, match="accepted answer"):
        write_agent_parquet(tmp_path / "none.parquet", [other], {})
    assert not (tmp_path / "none.parquet").exists()
