"""A training that cannot work ends in seconds with a sentence: real tokenizer, real server."""

import dataclasses
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from live_server import serving
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner

from convsearch.cli.main import app as program
from convsearch.data.parquet import write_grpo_parquet, write_sft_parquet
from convsearch.errors import ConfigError, ConvsearchError, DataError, RetrieverError
from convsearch.files import write_qrels, write_turns
from convsearch.passages import write_passages
from convsearch.pipeline.presets import preset
from convsearch.prompts import rewrite_messages
from convsearch.prompts.tagged import INSTRUCTION
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.train.grpo import run_grpo
from convsearch.train.grpo_settings import GrpoSettings, grpo_overrides
from convsearch.train.preflight import check_grpo, check_run, check_sft
from convsearch.train.preflight.lengths import TokenCounter, check_context
from convsearch.train.sft import SftSettings, run_sft
from convsearch.types import Message, Passage, Turn
from retriever_server.app import create_app

NANO = Path(__file__).parents[3] / "assets" / "nano"
SECONDS = 60.0
"""Generous, for a busy machine; verl alone takes longer to import there."""
TURNS = [
    Turn(
        qid=f"c{i}_{n}", conv_id=f"c{i}", turn=n, split="train", question=f"where is it {n}?",
        history=tuple(
            Message(role=("user", "agent")[k % 2], text=f"utterance {k} of the ferry {'on ' * 9}")
            for k in range(2 * (n - 1))
        ),
    )
    for i in range(3)
    for n in range(1, 9)
]  # fmt: skip
QRELS = {turn.qid: {f"p{n}": 1} for n, turn in enumerate(TURNS)}
PASSAGES = [Passage(doc_id=f"p{n}", title="", text=f"ferry {n}") for n in range(len(TURNS))]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(create_app(InMemoryRetriever(PASSAGES), qrels=QRELS)) as url:
        yield url


def grpo(folder: Path, **more: Any) -> GrpoSettings:
    path = folder / "grpo.parquet"
    if not path.exists():
        write_grpo_parquet(path, TURNS, QRELS, style="instruct", data_source="toy")
    values: dict[str, Any] = {
        "model_path": NANO, "train_file": path, "out_dir": folder / "out", "total_steps": 1,
        "prompts_per_step": 4, "rollouts": 2, "micro_batch": 8, "num_gpus": 1, "device": "cpu",
        "max_prompt_length": 900, "max_response_length": 100,
    }  # fmt: skip
    return GrpoSettings(**{**values, **more})


def start(settings: GrpoSettings, url: str) -> None:
    run_grpo(settings, url, settings.out_dir / "log", settings.out_dir / "metrics.jsonl")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_all_is_well(tmp_path: Path, server: str) -> None:
    settings = grpo(tmp_path)
    assert check_grpo(settings, server, tmp_path / "none") == settings
    assert not settings.out_dir.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"micro_batch": 3}, r"--micro-batch 3 .* take --micro-batch 2"),
        ({"device": "cuda", "num_gpus": 4096, "rollouts": 1024}, "--device cuda with --num-gpus"),
        ({"max_prompt_length": 4}, r"--max-prompt-length 4 is too short for all 24 prompts"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    tmp_path: Path, server: str, more: dict[str, object], said: str
) -> None:
    settings = grpo(tmp_path, **more)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=said):
        start(settings, server)
    assert time.monotonic() - started < SECONDS
    assert not settings.out_dir.exists()


def test_where_no_server_answers_it_says_how_to_start_one(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RetrieverError, match=f"no server answers at {url}.*convsearch serve"):
        start(grpo(tmp_path), url)
    assert not (tmp_path / "out").exists()


def test_a_server_of_another_data_set_is_refused(tmp_path: Path) -> None:
    others = {"x1": {"p0": 1}}
    with (
        serving(create_app(InMemoryRetriever(PASSAGES), qrels=others)) as url,
        pytest.raises(DataError, match=r"none of the 24 queries .*serve the index"),
    ):
        start(grpo(tmp_path), url)
    with (
        serving(create_app(InMemoryRetriever(PASSAGES))) as url,
        pytest.raises(DataError, match="has no qrels"),
    ):
        start(grpo(tmp_path), url)
    # equal names of queries, another corpus
    foreign = [Passage(doc_id=f"x{n}", title="", text=f"ferry {n}") for n in range(9)]
    qrels = {turn.qid: {"x1": 1} for turn in TURNS}
    with (
        serving(create_app(InMemoryRetriever(foreign), qrels=qrels)) as url,
        pytest.raises(DataError, match="none of the 24 relevant passages"),
    ):
        start(grpo(tmp_path), url)


def test_some_unknown_queries_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = {qid: golds for qid, golds in QRELS.items() if not qid.startswith("c0")}
    with serving(create_app(InMemoryRetriever(PASSAGES), qrels=known)) as url:
        check_grpo(grpo(tmp_path), url, tmp_path / "none")
    assert "8 of 24 queries that were looked up are not known" in caplog.text


def test_the_server_of_another_program_needs_no_health_check(tmp_path: Path) -> None:
    async def retrieve(request: Any) -> JSONResponse:
        asked = await request.json()
        if "query_ids" not in asked:
            return JSONResponse({"error": "what is this?"}, 422)
        return JSONResponse({"result": [-1] * len(asked["queries"])})

    app = Starlette(routes=[Route("/retrieve", retrieve, methods=["POST"])])
    with serving(app) as url:
        check_grpo(grpo(tmp_path), url, tmp_path / "none")


def test_long_prompts_lose_their_oldest_turns_and_never_the_instruction(
    tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 400
    settings = grpo(tmp_path, max_prompt_length=limit)
    prepared = check_grpo(settings, server, tmp_path / "none")
    assert prepared == dataclasses.replace(settings, train_file=prepared.train_file)
    assert prepared.train_file.parent == settings.out_dir
    before = pq.read_table(settings.train_file).to_pylist()
    after = pq.read_table(prepared.train_file).to_pylist()
    counter = TokenCounter(NANO, with_answer=False)
    lengths = counter.count([row["prompt"] for row in before])
    cut = [i for i, length in enumerate(lengths) if length > limit]
    assert 0 < len(cut) < len(before)
    assert f"{len(cut)} of 24 prompts are longer than --max-prompt-length {limit}" in caplog.text
    assert max(counter.count([row["prompt"] for row in after])) <= limit
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        assert new["prompt"][0] == {"role": "system", "content": INSTRUCTION}
        assert new["prompt"][1]["content"].endswith(TURNS[i].question)
        assert {**new, "prompt": old["prompt"]} == old
        assert (new == old) == (i not in cut)
        if i in cut:  # as many of the newest exchanges as fit
            turn = TURNS[i]
            fitting = [
                chat
                for k in range(0, len(turn.history) + 1, 2)
                for chat in [
                    rewrite_messages(
                        dataclasses.replace(turn, history=turn.history[k:]), "instruct"
                    )
                ]
                if counter.count([chat])[0] <= limit
            ]
            assert new["prompt"] == fitting[0]
    assert "data.truncation='error'" in grpo_overrides(prepared)


def test_lengths_beyond_what_the_model_reads(caplog: pytest.LogCaptureFixture) -> None:
    check_context(NANO, 900, 124, "cuda")
    with pytest.raises(ConfigError, match=r"1636 tokens together, .* reads at most 1024"):
        check_context(NANO, 1536, 100, "cuda")
    assert caplog.text == ""
    check_context(NANO, 1536, 100, "cpu")
    assert "reads at most 1024" in caplog.text


def sft(folder: Path, path: Path, **more: Any) -> SftSettings:
    values: dict[str, Any] = {
        "model_path": NANO, "train_file": path, "out_dir": folder / "out", "batch": 4,
        "micro_batch": 4, "nproc": 1, "device": "cpu", "max_length": 1000,
    }  # fmt: skip
    return SftSettings(**{**values, **more})


def test_examples_are_looked_at_before_the_trainer_starts(tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "sft.parquet"
    good = [{"role": "user", "content": "Q: x"}, {"role": "assistant", "content": "y"}]
    bad: list[tuple[object, str]] = [
        (json.dumps(good[:1]), "row 4: no message of the assistant"),
        (None, 'row 4: "messages" is null'),
        ("[]", "row 4: .*empty list"),
    ]
    for value, said in bad:
        rows = [{"messages": json.dumps(good)}] * 3 + [{"messages": value}] * 2
        pq.write_table(pa.Table.from_pylist(rows), path)
        with pytest.raises(DataError, match=rf"sft\.parquet: {said}"):
            run_sft(sft(tmp_path, path), tmp_path / "log")
    rows = [{"extra_info": {"question": "Q: x", "answer": "y"}}] * 5
    pq.write_table(pa.Table.from_pylist(rows), path)
    prepared = check_sft(sft(tmp_path, path), tmp_path / "none")
    assert pq.read_table(prepared.train_file).to_pylist()[4]["messages"] == good


def test_examples_that_are_too_long_lose_their_oldest_turns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sft.parquet"
    answer = "<think>t</think>\n<rewrite>the ferry</rewrite>"
    write_sft_parquet(path, [(turn, answer) for turn in TURNS], style="instruct")
    prepared = check_sft(sft(tmp_path, path, max_length=420), tmp_path / "none")
    assert "examples are longer than --max-length 420 and lost their oldest" in caplog.text
    rows = pq.read_table(prepared.train_file).to_pylist()
    assert len(rows) == len(TURNS)
    assert all(row["messages"][0]["content"] == INSTRUCTION for row in rows)
    assert all(row["messages"][-1]["content"] == answer for row in rows)
    chats = [row["messages"] for row in rows]
    assert max(TokenCounter(NANO, with_answer=True).count(chats)) <= 420
    with pytest.raises(ConfigError, match="--max-length 20 is too short for all 24 examples"):
        check_sft(sft(tmp_path, path, max_length=20), tmp_path / "none")


def test_a_template_that_refuses_a_chat_is_told_by_row(tmp_path: Path, server: str) -> None:
    import shutil

    model = tmp_path / "picky"
    shutil.copytree(NANO, model)
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    (model / "chat_template.jinja").write_text(template)
    with pytest.raises(ConvsearchError, match=r"grpo\.parquet: row 1: .*refuses.*system, user"):
        check_grpo(grpo(tmp_path, model_path=model), server, tmp_path / "none")


def test_it_takes_seconds_and_says_how_many(
    tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "convsearch.train.preflight")
    check_grpo(grpo(tmp_path), server, tmp_path / "none")
    assert "checked before the start in " in caplog.text


@pytest.mark.parametrize(
    ("setting", "name", "said"),
    [
        ("grpo.micro_batch=7", "run", "--micro-batch 7"),
        ("grpo.num_gpus=96", "run", "grpo.device cuda with grpo.num_gpus 96: no GPU"),
        ("sft.device=cuda", "run", "sft.device cuda with sft.nproc 1: no GPU"),
        ("seed=1", "a::b", "rename the folder"),
        ("seed=1", "a[1]*?", None),
    ],
)
def test_a_quickstart_knows_before_its_first_stage(
    tmp_path: Path, setting: str, name: str, said: str | None
) -> None:
    more = ["grpo.device=cuda"] if "num_gpus" in setting else []
    config = preset("mini", source=None, policy=NANO, overrides=[setting, *more])
    if said is None:
        check_run(config.sft, config.grpo, config.policy, tmp_path / name)
        return
    with pytest.raises(ConfigError, match=said):
        check_run(config.sft, config.grpo, config.policy, tmp_path / name)


def test_prompts_can_be_cut_when_they_are_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_turns(tmp_path / "set" / "turns.jsonl", TURNS)
    write_qrels(tmp_path / "set" / "qrels.trec", QRELS)
    write_passages(tmp_path / "set" / "corpus.jsonl", PASSAGES)
    made = tmp_path / "made" / "grpo.parquet"
    words = ["data", "prompts", "--dataset", str(tmp_path / "set"), "--out", str(made), "--fresh"]
    words += ["--prompt", "instruct"]
    cut = [*words, "--model", str(NANO), "--max-prompt-length"]
    refused = CliRunner().invoke(program, [*cut, "9"])
    assert isinstance(refused.exception, ConfigError)
    assert list(made.parent.iterdir()) == []
    assert CliRunner().invoke(program, [*cut, "400"]).exit_code == 0
    assert {path.suffix for path in made.parent.iterdir()} == {".parquet", ".json"}
    assert "3 of 24 prompts are longer than --max-prompt-length 400" in caplog.text
    short = [row["prompt"] for row in pq.read_table(made).to_pylist()]
    assert max(TokenCounter(NANO, with_answer=False).count(short)) <= 400
    assert CliRunner().invoke(program, [*cut, "900"]).exit_code == 0
    assert pq.read_table(made).num_rows == len(TURNS)
    alone = CliRunner().invoke(program, [*words, "--max-prompt-length", "400"])
    assert isinstance(alone.exception, ConfigError)
