"""What the stages share: drawing conversations, joining logs; and the plan they form."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from convsearch.errors import CheckpointError, ConfigError, DataError, MissingFileError
from convsearch.files import write_jsonl
from convsearch.pipeline.drawing import check_conversations, draw_conversations
from convsearch.pipeline.layout import POLICIES, RunLayout
from convsearch.pipeline.pipeline import read_result, run_pipeline
from convsearch.pipeline.presets import preset
from convsearch.pipeline.runner import Counts, Stage
from convsearch.pipeline.stages import Stages
from convsearch.pipeline.training_log import collect_training_metrics
from convsearch.types import Turn

EVALUATIONS = {"eval-training-free", *(f"eval-{p}" for p in POLICIES)}


class Silent:
    def started(self, stage: str, number: int, total: int) -> None: ...

    def advanced(self, stage: str, done: int, total: int, what: str) -> None: ...

    def ended(self, stage: str, seconds: float, counts: Counts, *, reused: bool) -> None: ...


def make_turns(num_conversations: int, length: int = 4) -> list[Turn]:
    return [
        Turn(qid=f"c{c}_{t}", conv_id=f"c{c}", turn=t, split="train", question="what?")
        for c in range(num_conversations)
        for t in range(1, length + 1)
    ]


def stages_of(*overrides: str, root: Path = Path("nowhere")) -> dict[str, Stage]:
    config = preset("mini", source=None, policy=Path("policy"), overrides=overrides)
    return {s.name: s for s in Stages(config, RunLayout(root=root), ExitStack()).all()}


def test_drawn_conversations_are_whole_in_order_and_within_the_limit() -> None:
    turns = make_turns(30)
    drawn = draw_conversations(turns, 21, seed=0)
    assert len(drawn) == 20
    assert set(Counter(t.conv_id for t in drawn).values()) == {4}
    assert drawn == [t for t in turns if t in drawn]
    assert drawn != draw_conversations(turns, 21, seed=1)
    assert drawn == draw_conversations(turns, 21, seed=0)


def test_no_limit_takes_all_and_a_tiny_one_takes_a_conversation() -> None:
    turns = make_turns(3)
    assert draw_conversations(turns, 0, seed=0) == turns
    assert draw_conversations(turns, 99, seed=0) == turns
    assert len(draw_conversations(turns, 1, seed=0)) == 4


@pytest.mark.parametrize("conversations", [0, 1])
def test_one_conversation_to_measure_on_is_refused(conversations: int) -> None:
    with pytest.raises(ConfigError, match=f"{conversations} conversations to evaluate on"):
        check_conversations(make_turns(conversations))
    check_conversations(make_turns(2))


def test_plan_has_all_stages_in_order() -> None:
    assert list(stages_of()) == [
        "data", "index", "server", "distill", "sft", "grpo",
        *(f"infer-{p}" for p in POLICIES), "eval-training-free", *(f"eval-{p}" for p in POLICIES),
    ]  # fmt: skip


def test_every_stage_needs_only_what_comes_before_it() -> None:
    seen: set[str] = set()
    for name, stage in stages_of().items():
        assert set(stage.needs) <= seen
        seen.add(name)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("grpo.total_steps=7", {"grpo"}),
        ("sft.lr=1e-5", {"sft"}),
        ("grpo.time_limit_s=9", set()),
        ("sft.threads=3", set()),
        ("index.k1=1.2", {"index"}),
        ("eval.topk=50", EVALUATIONS),
        ("data.eval_turns=10", {f"infer-{p}" for p in POLICIES} | EVALUATIONS),
    ],
)
def test_a_setting_belongs_to_the_stages_it_shapes(override: str, changed: set[str]) -> None:
    before, after = stages_of(), stages_of(override)
    assert {n for n in before if before[n].settings != after[n].settings} == changed


def test_settings_of_stages_are_free_of_this_machines_paths(tmp_path: Path) -> None:
    for stage in stages_of(root=tmp_path).values():
        assert str(tmp_path) not in json.dumps(stage.settings)


def test_training_logs_are_joined(tmp_path: Path) -> None:
    layout = RunLayout(root=tmp_path)
    write_jsonl(layout.root / "sft" / "metrics.jsonl", [{"step": 1, "data": {"train/loss": 2.0}}])
    write_jsonl(layout.root / "grpo" / "metrics.jsonl", [{"step": 1, "data": {"reward": 0.5}}])
    collect_training_metrics(layout)
    assert [json.loads(line) for line in layout.metrics.read_text().splitlines()] == [
        {"stage": "sft", "step": 1, "train/loss": 2.0},
        {"stage": "grpo", "step": 1, "reward": 0.5},
    ]


def test_missing_policy_stops_the_run_before_anything_is_written(tmp_path: Path) -> None:
    config = preset("mini", source=None, policy=tmp_path / "no_policy")
    with pytest.raises(MissingFileError, match="no_policy"):
        run_pipeline(config, tmp_path / "run", Silent(), fresh=False, command="")
    (tmp_path / "not_a_model").mkdir()
    config = preset("mini", source=None, policy=tmp_path / "not_a_model")
    with pytest.raises(CheckpointError, match="not_a_model"):
        run_pipeline(config, tmp_path / "run", Silent(), fresh=False, command="")
    assert not (tmp_path / "run").exists()


def test_result_without_interval_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"metrics": {}, "mrr_interval_95": None}))
    with pytest.raises(DataError, match=r"metrics\.json.*mrr_interval_95"):
        read_result(path)
