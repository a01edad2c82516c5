"""Plans of a reproduction: what they hold, what they expect, what a machine may run."""

import json
import math
from pathlib import Path

import pytest
from evaluation_folders import write_folder
from typer.testing import CliRunner

from convsearch.cli.main import app
from convsearch.errors import ConfigError, DataError, MissingFileError
from convsearch.pipeline.reproduce.expected import expected_numbers, tolerance_points
from convsearch.pipeline.reproduce.machine import Machine, lacks, this_machine
from convsearch.pipeline.reproduce.run import run_plan
from convsearch.pipeline.reproduce.steps import PHASES, Needs, Site, Step
from convsearch.pipeline.reproduce.tables import TABLES, Choice, Plan, plan

NODE = Machine(
    cpus=96,
    ram_gb=1000,
    disk_free_gb=5000,
    gpus=("H100",) * 8,
    java=False,
    packages=frozenset({"verl", "vllm", "pyarrow"}),
    server=True,
)
LAPTOP = Machine(
    cpus=2, ram_gb=16, disk_free_gb=30, gpus=(), java=False, packages=frozenset(), server=False
)


def methods(made: Plan) -> list[str]:
    return [source.method for source in made.columns[0].sources]


@pytest.mark.parametrize("table", TABLES)
def test_steps_come_in_order_and_need_what_earlier_ones_make(table: str):
    made = plan(Choice(table=table))  # pyright: ignore[reportArgumentType]
    phases = [PHASES.index(step.phase) for step in made.steps]
    assert phases == sorted(phases)
    assert len({step.line for step in made.steps}) == len(made.steps)
    there: set[Path] = set()
    for step in made.steps:
        for needed in step.needs.files:
            beside = {path for path in there if path.parent in (needed, needed.parent)}
            assert needed in there or beside, f"{step.title} needs {needed}"
        if step.makes:
            there.add(step.makes)


def test_tables_hold_the_rows_of_the_paper():
    table1 = methods(plan(Choice(table="table1", models=("qwen2.5-3b",))))
    assert table1[:3] == ["raw", "history", "history-3"]  # what needs no model comes first
    assert table1[3:] == [
        "qwen2.5-3b-zero-shot",
        "qwen2.5-3b-few-shot",
        "qwen2.5-3b-pseudo-document",
        "qwen2.5-3b-convsearch-r1",
    ]
    assert methods(plan(Choice(table="table6"))) == [
        "qwen2.5-3b-convsearch-r1",
        "qwen2.5-3b-exponential",
        "qwen2.5-3b-reciprocal",
    ]
    made = plan(Choice(table="table2", datasets=("topiocqa",), engines=("bm25",)))
    lines = [step.line for step in made.steps]
    assert any("run_qwen2.5-3b_qrecc.sh" in line for line in lines)
    assert not any("run_qwen2.5-3b_topiocqa.sh" in line for line in lines)
    assert "qwen2.5-3b-convsearch-r1-of-qrecc" in methods(made)


def test_table_5_trains_llama2_with_and_without_warm_up():
    made = plan(Choice(table="table5", datasets=("topiocqa",), engines=("bm25",)))
    assert methods(made) == ["llama2-7b-grpo-only", "llama2-7b-convsearch-r1"]
    [without] = [step for step in made.steps if step.title.endswith("without warm-up")][:1]
    assert dict(without.env)["MODEL"] == "meta-llama/Llama-2-7b-chat-hf"
    [with_it] = [s for s in made.steps if s.title == "GRPO, Llama2-7B on topiocqa"]
    assert dict(with_it.env)["MODEL"] == "runs/llama2-7b_topiocqa/sft_model"
    assert {c.method: c.value for c in expected_numbers(made, seeds=1) if c.metric == "mrr"} == {
        "llama2-7b-grpo-only": 13.5,
        "llama2-7b-convsearch-r1": 35.1,
    }


def test_what_other_ranks_trained_is_another_model():
    """Or the checkpoint of one engine's ranks would count as done for the other's."""
    by_ance, by_bm25 = (
        plan(Choice(table="table3", datasets=("topiocqa",), engines=("bm25",), train_engine=e))
        for e in ("ance", "bm25")
    )
    made = [
        {s.makes for s in p.steps if s.phase == "training" and s.makes} for p in (by_ance, by_bm25)
    ]
    assert made[0] & made[1] == {Path("data/topiocqa/grpo.parquet")}
    evaluated = [{s.makes for s in p.steps if s.phase == "evaluation"} for p in (by_ance, by_bm25)]
    assert {str(p.parent.name) for p in evaluated[0] & evaluated[1] if p} == {
        f"qwen2.5-3b-zero-shot_{seed}" for seed in range(3)
    }
    [sft] = [s for s in by_bm25.steps if s.title.startswith("supervised")]
    assert sft.words == ("bash", "verl/examples/sft/topiocqa/run_sft_qwen2.5-3b.sh")
    assert dict(sft.env) == {
        "TRAIN_FILE": "runs/qwen2.5-3b-by-bm25_topiocqa/distill/sft_train.parquet",
        "OUT": "runs/qwen2.5-3b-by-bm25_topiocqa/sft",
    }


def test_table_4_ends_with_self_distillation_and_counts_what_it_kept(tmp_path: Path):
    made = plan(Choice(table="table4", train_engine="bm25"))
    assert {step.phase for step in made.steps} == {"data", "indexes", "training"}
    distilling = [step.line for step in made.steps if step.line.startswith("convsearch distill")]
    assert len(distilling) == 4
    assert not any("ance" in step.line or "--engine vllm --workers" in step.line
                   for step in made.steps if step.line not in distilling)  # fmt: skip
    passport = tmp_path / "runs" / "llama3.2-3b-by-bm25_qrecc" / "distill" / "run.json"
    passport.parent.mkdir(parents=True)
    passport.write_text(json.dumps({"counts": {"kept": 7001, "train": 6600}}))
    cells = {(c.column, c.method): c for c in expected_numbers(made, seeds=1, root=tmp_path)}
    assert {key: cell.value for key, cell in cells.items()} == {
        ("topiocqa", "qwen2.5-3b-by-bm25-distill"): 5892,
        ("qrecc", "qwen2.5-3b-by-bm25-distill"): 7759,
        ("topiocqa", "llama3.2-3b-by-bm25-distill"): 6034,
        ("qrecc", "llama3.2-3b-by-bm25-distill"): 6623,
    }
    found = cells["qrecc", "llama3.2-3b-by-bm25-distill"]
    assert (found.published_text, found.measured_text) == ("6,623", "7,001")
    assert found.verdict == "for orientation"
    assert cells["qrecc", "qwen2.5-3b-by-bm25-distill"].verdict == "not yet measured"
    passport.write_text("{}")
    with pytest.raises(DataError, match="not of a finished self-distillation"):
        expected_numbers(made, seeds=1, root=tmp_path)


def test_rewards_of_table_6_reach_the_recipe():
    lines = [step.line for step in plan(Choice(table="table6")).steps]
    for reward in ("exponential", "reciprocal"):
        assert any(
            line.endswith(f"run_qwen2.5-3b_topiocqa.sh retriever.reward={reward}") for line in lines
        )


def test_the_number_of_gpus_is_one_number():
    for gpus in (2, 8):
        made = plan(Choice(table="table6", site=Site(gpus=gpus)))
        trained = [step for step in made.steps if step.title.startswith(("GRPO", "supervised"))]
        assert len(trained) == 4
        assert all(step.needs.gpus == gpus for step in trained)
        assert all(("GPUS=2 " in step.line) is (gpus == 2) for step in trained)


def test_cells_that_a_table_does_not_have_are_named():
    for choice in (
        Choice(table="table6", datasets=("qrecc",)),
        Choice(table="table3", models=("llama3.2-3b",)),
        Choice(table="table1", models=("llama2-7b",)),
        Choice(table="table5", models=("qwen2.5-3b",)),
    ):
        with pytest.raises(ConfigError, match=f"{choice.table} has no cells for this choice"):
            plan(choice)


def test_tolerance_by_hand():
    assert tolerance_points(2.1, "fixed", 2514) == 0.5
    assert tolerance_points(8.8, "prompted", 2514) is None
    half = 100 * 1.959964 * math.sqrt(0.352 * 0.648 / 2514)  # 1.867 points
    assert tolerance_points(35.2, "trained", 2514) == pytest.approx(math.hypot(half, 1.6))
    assert half == pytest.approx(1.867, abs=1e-3)


def test_expected_numbers_are_the_published_ones_and_meet_what_was_measured(tmp_path: Path):
    choice = Choice(table="table1", datasets=("topiocqa",), engines=("bm25",), seeds=2)
    made = plan(choice)
    cells = expected_numbers(made, seeds=2)
    values = {(c.method, c.metric): c.value for c in cells}
    assert values["raw", "mrr"] == 2.1
    assert values["llama3.2-3b-convsearch-r1", "recall_100"] == 80.1
    assert len(cells) == 4 * 5  # raw, two zero-shot, two trained
    assert {c.verdict for c in cells} == {"not yet measured"}
    runs = tmp_path / "runs" / "reproduce" / "topiocqa" / "bm25"
    write_folder(runs / "raw", {f"c_{i}": 1 if i < 2 else None for i in range(1, 101)})
    write_folder(runs / "qwen2.5-3b-convsearch-r1_0", {"c_1": 1, "c_2": None})
    seen = {(c.method, c.metric): c for c in expected_numbers(made, seeds=2, root=tmp_path)}
    raw = seen["raw", "mrr"]
    assert raw.measured == pytest.approx(1.0)
    assert raw.verdict == "outside the tolerance"
    assert seen["qwen2.5-3b-convsearch-r1", "mrr"].measured == 50.0
    assert seen["llama3.2-3b-convsearch-r1", "mrr"].measured is None


def test_a_machine_lacks_what_it_lacks(tmp_path: Path):
    step = Step(
        phase="training",
        title="train",
        words=("bash", "scripts/x.sh"),
        needs=Needs(
            gpus=8, disk_gb=40, ram_gb=200, packages=("verl", "vllm"), files=(Path("data/t"),),
            server=True,
        ),
    )  # fmt: skip
    said = "; ".join(lacks(step, LAPTOP, tmp_path))
    for reason in (
        "needs GPUs: 8, here: 0", "about 40 GB of disk, 30 GB are free",
        "about 200 GB of memory, here are 16 GB", "verl and vllm not installed",
        "a retrieval server that answers",
        "data/t and scripts/x.sh (run from a checkout) not there",
    ):  # fmt: skip
        assert reason in said
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "x.sh").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t").touch()
    assert lacks(step, NODE, tmp_path) == []


def test_a_training_counts_as_done_only_when_it_ended_well(tmp_path: Path):
    """A checkpoint of verl is there long before the training is over."""
    made = plan(Choice(table="table6", datasets=("topiocqa",)))
    script = "verl/examples/sft/topiocqa/run_sft_qwen2.5-3b.sh"
    (step,) = [step for step in made.steps if step.words == ("bash", script)]
    path = tmp_path / script
    path.parent.mkdir(parents=True)
    for needed in step.needs.files:
        (tmp_path / needed).parent.mkdir(parents=True)
        (tmp_path / needed).touch()
    checkpoint = tmp_path / "runs/qwen2.5-3b_topiocqa/sft/latest_checkpointed_iteration.txt"
    outcomes = []
    for body in ("exit 3", "kill -9 $$", "true", "exit 4"):
        path.write_text(body)
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_text("50")
        ran = run_plan(made, [step], NODE, tmp_path, lambda *_: None)
        outcomes.append((ran[0].outcome, ran[0].reason))
    assert [outcome for outcome, _ in outcomes] == ["failed", "failed", "done", "kept"]
    assert outcomes[0][1] == "exit code 3"
    assert json.loads((checkpoint.parent / "reproduced.json").read_text())["settings"] == {
        "command": f"bash {script}"
    }


def test_this_machine_is_looked_at(tmp_path: Path):
    here = this_machine(tmp_path, "http://127.0.0.1:1")
    assert here.cpus >= 1
    assert here.ram_gb > 0.1
    assert not here.server
    assert "processors" in here.lines()[0]
    with pytest.raises(MissingFileError, match="no such folder"):
        this_machine(tmp_path / "none", "http://127.0.0.1:1")


def shown(*words: str) -> str:
    done = CliRunner().invoke(app, ["reproduce", *words])
    assert done.exit_code == 0, done.exception
    return done.output


def test_printed_plan_says_hardware_state_and_expectation(tmp_path: Path):
    out = shown("table1", "--dataset", "topiocqa", "--engine", "bm25", "--root", str(tmp_path))
    assert "one node with 8 GPUs" in out
    assert "not here and now: " in out
    assert "convsearch data topiocqa --out data/topiocqa --gold first --validation-share 0" in out
    assert "our judgement" in out or "project's judgement" in out
    commands = [line for line in out.splitlines() if line and not line.startswith("#")]
    assert all(line.split()[0] in ("convsearch", "bash") or "=" in line for line in commands)
    assert "topiocqa/bm25  raw" in out
    only = shown("table1", "--only", "evaluate raw", "--root", str(tmp_path))
    assert len([x for x in only.splitlines() if x.startswith("convsearch")]) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("table1", "--dataset", "trec"), "--dataset trec: choose topiocqa or qrecc"),
        (("table1", "--engine", "splade"), "--engine splade: choose bm25 or ance"),
        (("table3", "--model", "llama3.2-3b"), "table3 has no cells"),
        (("table4", "--engine", "bm25"), "table4 has no search results: leave --engine out"),
        (("table1", "--only", "nothing"), "no step of table1 has nothing in its title"),
        (("table1", "--gpus", "3"), "--gpus 3: the recipes divide their batches among 1, 2, 4, 8"),
        (("table1", "--root", "no/such/folder"), "no/such/folder: no such folder"),
    ],
)
def test_wrong_choices_are_sentences(words: tuple[str, ...], said: str):
    done = CliRunner().invoke(app, ["reproduce", *words])
    assert isinstance(done.exception, (ConfigError, MissingFileError))
    assert said in str(done.exception)
