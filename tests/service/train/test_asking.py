"""How a trained model is to be asked travels from the rows, or the first model, into its folder."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from live_server import serving
from tiny_model import make_tiny_model

from convsearch.data.parquet import (
    read_rows_asking,
    write_agent_parquet,
    write_grpo_parquet,
    write_sft_parquet,
)
from convsearch.errors import DataError
from convsearch.prompts.asking import ASKING_FILE, asking_of, read_asking, write_asking
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.train.asking import asking_of_training
from convsearch.train.checkpoint import publish
from convsearch.train.merge import merge_checkpoint
from convsearch.types import Passage, Question, Turn
from retriever_server.app import create_app

TURN = Turn(qid="q1", conv_id="c", turn=1, split="train", question="how big is it?")
QRELS = {"q1": {"d1": 1}}
RESPONSE = "<think>a</think>\n<rewrite>b</rewrite>"


def prompts(path: Path, style="nano") -> Path:
    write_grpo_parquet(path, [TURN], QRELS, style=style, data_source="toy")
    return path


def without_metadata(path: Path) -> Path:
    """As an earlier version, or another program, would have written it."""
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert read_rows_asking(path) is None
    return path


def first_model(folder: Path, style=None) -> Path:
    folder.mkdir()
    if style:
        write_asking(folder, asking_of(style, max_response_tokens=96, engine="dense", index="i"))
    return folder


def test_the_rows_tell_and_the_server_and_the_limits_of_the_training(tmp_path: Path, caplog):
    engine = InMemoryRetriever([Passage(doc_id="d1", title="", text="big")])
    with serving(create_app(engine)) as url:
        found = asking_of_training(
            first_model(tmp_path / "m"),
            prompts(tmp_path / "g.parquet"),
            stage="grpo",
            max_prompt_tokens=384,
            max_response_tokens=64,
            retriever_url=f"{url}/retrieve?index=default",
        )
    assert found == asking_of(
        "nano",
        stage="grpo",
        max_prompt_tokens=384,
        max_response_tokens=64,
        dataset="toy",
        engine="memory",
        index="default",
        index_fingerprint=engine.info.fingerprint,
    )
    assert caplog.text == ""


def test_examples_carry_what_ranked_for_them(tmp_path: Path):
    known = {"dataset": "toy", "max_response_tokens": 48, "engine": "bm25", "index": "idx"}
    path = tmp_path / "sft.parquet"
    write_sft_parquet(path, [(TURN, RESPONSE)], style="instruct", known=known)
    model = first_model(tmp_path / "m", "instruct")
    found = asking_of_training(model, path, stage="sft", column="messages")
    assert found == asking_of("instruct", stage="sft", **known)


def test_rows_that_tell_nothing_are_known_by_their_words_or_by_the_first_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    model = first_model(tmp_path / "silent")
    plain = without_metadata(prompts(tmp_path / "instruct.parquet", "instruct"))
    found = asking_of_training(model, plain, stage="grpo")
    assert found == asking_of("instruct", stage="grpo")
    bare = without_metadata(prompts(tmp_path / "nano.parquet", "nano"))
    found = asking_of_training(first_model(tmp_path / "nano", "nano"), bare, stage="grpo")
    assert found is not None
    assert (found.style, found.max_response_tokens, found.engine) == ("nano", 96, "dense")
    assert caplog.text == ""
    assert asking_of_training(model, bare, stage="grpo") is None
    assert "of no style that this version knows" in caplog.text


def test_rows_that_contradict_the_first_model_warn(tmp_path: Path, caplog):
    model = first_model(tmp_path / "m", "nano")
    for style, warnings in (("nano", 0), ("instruct", 1)):
        found = asking_of_training(
            model, prompts(tmp_path / f"{style}.parquet", style), stage="sft"
        )
        assert found is not None
        assert found.style == style
        assert len(caplog.records) == warnings
    assert "make them with --prompt nano" in caplog.text
    assert found.engine is None  # of the other style's training


def test_a_first_model_whose_words_were_not_of_these_rows_does_not_count(tmp_path: Path, caplog):
    model = first_model(tmp_path / "m", "instruct")
    bare = without_metadata(prompts(tmp_path / "g.parquet", "nano"))
    assert asking_of_training(model, bare, stage="grpo") is None
    assert "of no style" in caplog.text


def test_agents_are_not_asked_for_rewrites(tmp_path: Path, caplog):
    question = Question(qid="q", dataset="d", question="?", answers=("a",), type="", split="train")
    write_agent_parquet(tmp_path / "a.parquet", [question], {})
    assert (
        asking_of_training(first_model(tmp_path / "m"), tmp_path / "a.parquet", stage="grpo")
        is None
    )
    assert caplog.text == ""


def test_a_server_that_does_not_answer_leaves_it_out(tmp_path: Path, caplog):
    rows = prompts(tmp_path / "g.parquet")
    found = asking_of_training(
        first_model(tmp_path / "m"), rows, stage="grpo", retriever_url="http://127.0.0.1:9"
    )
    assert found is not None
    assert found.engine is None
    assert "will not be recorded" in caplog.text


def test_what_is_no_training_file_is_a_sentence(tmp_path: Path):
    (tmp_path / "g.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match=r"g\.parquet: not a Parquet file"):
        asking_of_training(first_model(tmp_path / "m"), tmp_path / "g.parquet", stage="grpo")


def test_it_is_published_with_the_weights_and_never_that_of_another(tmp_path: Path):
    model = make_tiny_model(tmp_path / "first")
    write_asking(model, asking_of("nano"))
    asking = asking_of("instruct", stage="sft")
    assert read_asking(publish(model, tmp_path / "out", like=model, asking=asking)) == asking
    publish(model, tmp_path / "out", like=model)
    assert not (tmp_path / "out" / ASKING_FILE).exists()


def test_a_merged_model_says_what_verl_was_told_or_what_its_first_model_said(tmp_path: Path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = make_tiny_model(tmp_path / "first")
    write_asking(model, asking_of("nano", max_response_tokens=96, stage="nano"))
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        LoraConfig(target_modules="all-linear", init_lora_weights=False),
    )
    adapter = tmp_path / "run" / "global_step_3" / "lora_adapter"
    adapted.save_pretrained(adapter)
    merge_checkpoint(adapter, tmp_path / "untold", base=model)
    assert read_asking(tmp_path / "untold") == read_asking(model)
    record = tmp_path / "run" / "hydra" / ".hydra" / "overrides.yaml"
    record.parent.mkdir(parents=True)
    rows = prompts(tmp_path / "g.parquet")
    record.write_text(
        f"- actor_rollout_ref.model.path={model}\n- data.train_files='{rows}'\n"
        "- data.max_prompt_length=512\n- data.max_response_length=80\n"
    )
    merge_checkpoint(adapter, tmp_path / "told", base=model)
    assert read_asking(tmp_path / "told") == asking_of(
        "nano", stage="grpo", dataset="toy", max_prompt_tokens=512, max_response_tokens=80
    )
