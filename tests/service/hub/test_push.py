"""Publishing: the card says what the passports say, and the hub holds what was listed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_hub import FakeHub, running_hub
from huggingface_hub import ModelCard, constants
from typer.testing import CliRunner

from convsearch.cli.hub import app
from convsearch.errors import CheckpointError, ConfigError, DataError, HubError, MissingFileError
from convsearch.eval import METRICS
from convsearch.hub.push import push, write_plan
from convsearch.prompts.asking import asking_of, write_asking

ROOT = Path(__file__).parents[3]
REPO = "someone/rewriter"
SECRET = "hf_secret"
MODEL_FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 64,
    "model-00002-of-00002.safetensors": b"second",
    "model.safetensors.index.json": b"{}",
}


def write_passport(path: Path, stage: str, settings: dict[str, object], **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"stage": stage, "settings": settings, "counts": {}, "versions": {}, **more}
    path.write_text(json.dumps(record))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two stages as `convsearch sft` and `convsearch grpo` leave it, and an evaluation."""
    for stage in ("sft", "grpo"):
        model = tmp_path / stage / "model"
        model.mkdir(parents=True)
        for name, data in MODEL_FILES.items():
            (model / name).write_bytes(data)
        (model / "optim_world_size_1_rank_0.pt").write_bytes(b"not for others")
        start = "Qwen/Qwen2.5-3B-Instruct" if stage == "sft" else str(tmp_path / "sft" / "model")
        write_passport(
            tmp_path / stage / "run.json",
            stage,
            {
                "model_path": start,
                "train_file": str(tmp_path / "data" / f"{stage}.parquet"),
                "out_dir": str(tmp_path / stage),
                "lr": {"sft": 1e-5, "grpo": 1e-6}[stage],
            },
            counts={"steps": {"sft": 184, "grpo": 2130}[stage]},
            versions={"verl": "0.9.1"},
            git="abc123",
            made_at="2026-01-02T03:04:05Z",
            seed=11,
        )
    metrics = {
        "note": "mean over all queries; MRR by trec_eval",
        "mrr_depth": 100,
        "num_queries": 500,
        "answered": 490,
        "malformed": 10,
        "metrics": {name: 0.25 + i / 100 for i, name in enumerate(METRICS)},
        "mrr_interval_95": [0.21, 0.29],
    }
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "metrics.json").write_text(json.dumps(metrics))
    settings = {"dataset": "topiocqa", "split": "test", "retriever": str(tmp_path / "index_bm25")}
    write_passport(tmp_path / "eval" / "run.json", "eval", settings)
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with running_hub() as hub:
        yield hub


def dry_run(model: Path, *more: str) -> str:
    words = ["push", "--model", str(model), "--repo", REPO, "--dry-run", *more]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    return (model.with_name(f"{model.name}.push") / "README.md").read_text()


def test_the_card_says_what_was_done_and_measured(run: Path) -> None:
    card = dry_run(run / "grpo" / "model", "--evaluation", str(run / "eval"))
    header = yaml.safe_load(card.split("---")[1])
    assert header["base_model"] == "Qwen/Qwen2.5-3B-Instruct"
    assert header["library_name"] == "transformers"
    assert "license" not in header
    results = ModelCard(card).data.eval_results
    assert results is not None
    assert {r.metric_type: r.metric_value for r in results}["mrr"] == 0.25
    assert results[0].dataset_type == "topiocqa"
    assert card.index("SFT") < card.index("GRPO")
    for words in (
        "| `lr` | 1e-05 |", "| `lr` | 1e-06 |", "steps 184", "steps 2130", "seed 11",
        "| mrr@100 | 0.2500 | 0.2100 to 0.2900 |", "| recall@10 | 0.2800 | not computed |",
        "490 answered, 10 malformed",
        "Mean over all queries; MRR by trec_eval.",
        "commit `abc123`", "verl 0.9.1", "data/grpo.parquet",
    ):  # fmt: skip
        assert words in card
    assert str(run) not in card, "a path of this machine"


def test_the_card_shows_the_command_that_asks_the_model_rightly(run: Path) -> None:
    model = run / "grpo" / "model"
    card = dry_run(model)
    assert "The prompt that it was trained on is not recorded" in card
    assert "--prompt nano" not in card
    asking = asking_of(
        "nano", max_response_tokens=96, dataset="mini", engine="bm25", index_fingerprint="7a" * 32
    )
    write_asking(model, asking)
    card = dry_run(model)
    assert "someone--rewriter --prompt nano --max-tokens 96 --out rewrites.jsonl" in card
    assert "trained in prompt style `nano`, with responses of up to 96 tokens, and may" in card
    assert "data set `mini` and the search engine `bm25` (index 7a7a7a7a7a7a)." in card
    listed = (model.with_name("model.push") / "files.tsv").read_text()
    assert "convsearch.json" in listed


def test_without_an_evaluation_no_number_is_claimed(run: Path) -> None:
    card = dry_run(run / "grpo" / "model", "--license", "apache-2.0", "--base-model", "a/b")
    header = yaml.safe_load(card.split("---")[1])
    assert (header["license"], header["base_model"]) == ("apache-2.0", "a/b")
    assert "model-index" not in header
    assert "Not yet measured" in card
    assert "mrr" not in card


def test_a_merged_model_tells_its_training(run: Path) -> None:
    model = run / "grpo" / "model"
    write_passport(
        model / "run.json",
        "merge",
        {
            "kind": "lora",
            "world_size": 4,
            "step": 700,
            "load_test": {"num_tokens": 24},
            "training_overrides": [
                f"actor_rollout_ref.model.path='{run}/sft/model'",
                "data.train_files='data/topiocqa/grpo.parquet'",
                "actor_rollout_ref.rollout.n=16",
                "data.seed=3",
            ],
        },
        counts={"shards": 4},
        made_at="2026-01-05T00:00:00Z",
    )
    card = dry_run(model)
    assert "step 700, joined from 4 shard(s) and a LoRA adapter" in card
    assert "| `actor_rollout_ref.rollout.n` | 16 |" in card
    assert "weights joined: 2026-01-05T00:00:00Z, seed 3" in card
    assert "trained on: `topiocqa/grpo.parquet`\n" in card
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "Qwen/Qwen2.5-3B-Instruct"
    assert str(run) not in card


def test_a_model_without_a_training_is_sent_with_the_card_that_it_has(tmp_path: Path) -> None:
    model = ROOT / "assets" / "nano"
    words = ["push", "--model", str(model), "--repo", REPO, "--dry-run", "--plan", str(tmp_path)]
    with pytest.raises(MissingFileError, match=r"no run\.json .*--card .*nano/README\.md"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    words += ["--card", str(model / "README.md")]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "README.md").read_bytes() == (model / "README.md").read_bytes()
    assert "model.safetensors" in (tmp_path / "files.tsv").read_text()
    with pytest.raises(ConfigError, match="sent as it is"):
        CliRunner().invoke(app, [*words, "--license", "mit"], catch_exceptions=False)
    (tmp_path / "bare.md").write_text("# no metadata\n")
    with pytest.raises(DataError, match="no metadata"):
        CliRunner().invoke(app, [*words[:-1], str(tmp_path / "bare.md")], catch_exceptions=False)


def test_what_is_sent_is_what_was_listed(run: Path, hub: FakeHub) -> None:
    model = run / "grpo" / "model"
    files = write_plan(run / "plan", "# card\n", model)
    oid = push(REPO, files, endpoint=hub.url)
    repo = hub.repos["models", REPO]
    assert repo.private
    assert repo.head == oid
    assert set(repo.revisions[oid]) == {file.name for file in files}
    assert repo.revisions[oid]["README.md"] == b"# card\n"
    assert {**repo.revisions[oid], **MODEL_FILES} == repo.revisions[oid]
    assert not any("optim" in name or name == "run.json" for name in repo.revisions[oid])
    assert f"Bearer {SECRET}" in hub.tokens
    listed = (run / "plan" / "files.tsv").read_text()
    assert listed.count("\n") == len(files) + 1
    assert SECRET not in listed


def test_an_upload_that_was_lost_is_noticed(run: Path, hub: FakeHub) -> None:
    files = write_plan(run / "plan", "# card\n", run / "grpo" / "model")
    hub.loses_uploads = True
    with pytest.raises(HubError, match="did not arrive whole"):
        push(REPO, files, endpoint=hub.url)


def test_bad_inputs_are_sentences(run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run / "grpo" / "model"
    files = write_plan(run / "plan", "# card\n", model)
    hub.is_down = True
    with pytest.raises(HubError, match="answered 500"):
        push(REPO, files, endpoint=hub.url)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="HF_TOKEN is not set"):
        push(REPO, files, endpoint=hub.url)
    with pytest.raises(DataError, match="passport of eval"):
        dry_run(model, "--passport", str(run / "eval" / "run.json"))
    with pytest.raises(MissingFileError, match=r"metrics\.json"):
        dry_run(model, "--evaluation", str(run / "grpo"))
    (run / "eval" / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json:1: not valid JSON"):
        dry_run(model, "--evaluation", str(run / "eval"))
    (run / "grpo" / "run.json").write_text('{"stage": "grpo"}')
    with pytest.raises(MissingFileError, match=r"no run\.json"):
        dry_run(model)
    with pytest.raises(CheckpointError, match="not a model"):
        write_plan(run / "plan", "# card\n", run / "eval")
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        CliRunner().invoke(
            app, ["push", "--model", str(model), "--repo", "x"], catch_exceptions=False
        )


def test_a_card_of_somebody_else_is_not_written_over(run: Path, tmp_path: Path) -> None:
    model = run / "grpo" / "model"
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"README\.md: exists, and no files\.tsv beside it"):
        write_plan(tmp_path, "# card\n", model)
    assert (tmp_path / "README.md").read_text() == "mine"
    for text in ("# first\n", "# second\n"):
        write_plan(tmp_path / "plan", text, model)
    assert (tmp_path / "plan" / "README.md").read_text() == "# second\n"
