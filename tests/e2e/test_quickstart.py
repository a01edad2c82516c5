"""The whole quickstart at a tiny size, as a user runs it: interrupted twice, resumed, repeated.

One run folder goes through the tests of this file in their order, because the training in it takes
minutes.
"""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from convsearch.eval import METRICS
from convsearch.files import read_rewrites, read_run
from convsearch.pipeline.layout import POLICIES, RunLayout
from convsearch.pipeline.rivals import TRAINING_FREE
from convsearch.prompts.asking import read_asking

pytestmark = pytest.mark.e2e
TOTAL_STEPS = 5
"""So many that Ctrl-C after the first finds the training unfinished."""
COMMAND = [
    *(sys.executable, "-m", "convsearch.cli", "quickstart", "--preset", "tiny"),
    *("--set", f"grpo.total_steps={TOTAL_STEPS}"),
]
TIMEOUT_S = 900.0


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    return RunLayout(root=tmp_path_factory.mktemp("quickstart") / "run [1]")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, f"ended early with {process.returncode}"
        assert time.monotonic() < deadline, "the stage never got there"
        time.sleep(0.2)


def interrupt_when(layout: RunLayout, condition: Callable[[], bool], log: Path) -> list[str]:
    """Runs the quickstart, sends Ctrl-C once the condition holds, and returns the command lines of
    the processes that it had started. None of them may be alive afterwards."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "--run", str(layout.root)],
            stdout=subprocess.DEVNULL, stderr=stderr, text=True, preexec_fn=_heed_ctrl_c,
        )  # fmt: skip
        try:
            wait_for(condition, process)
            started = psutil.Process(process.pid).children(recursive=True)
            names = [" ".join(child.cmdline()) for child in started if child.is_running()]
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
        finally:
            process.kill()
    assert code == 130, log.read_text()
    assert "Run the same command to go on" in log.read_text()
    alive = [child for child in started if child.is_running()]
    assert alive == []
    assert not [p for p in psutil.process_iter() if str(layout.root) in command_line(p)]
    return names


def _heed_ctrl_c() -> None:
    """A shell starts its background jobs deaf to Ctrl-C, and these tests may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def stage_lines(stderr: str) -> dict[str, str]:
    """stage -> `new` or `kept`."""
    found = re.findall(r"^([a-z-]+) +(kept from before|[\d.]+ s)", stderr, re.M)
    return {name: "kept" if state.startswith("kept") else "new" for name, state in found}


def test_ctrl_c_during_distillation_stops_the_server(layout: RunLayout, tmp_path: Path) -> None:
    marker = layout.stage("distill") / "attempt.json"
    names = interrupt_when(layout, marker.exists, tmp_path / "log")
    assert any("retriever_server" in name for name in names)
    assert layout.passport("index").is_file()
    assert not layout.passport("distill").exists()


def test_ctrl_c_during_grpo_stops_ray_and_trainer(layout: RunLayout, tmp_path: Path) -> None:
    def first_step_done() -> bool:
        log = layout.logs / "grpo.log"
        return log.is_file() and "step:1 " in log.read_text(errors="replace")

    names = interrupt_when(layout, first_step_done, tmp_path / "log")
    for part in ("retriever_server", "verl.trainer.main_ppo", "raylet", "gcs_server"):
        assert any(part in name for name in names), f"{part} was not running"
    assert stage_lines((tmp_path / "log").read_text())["data"] == "kept"


def test_third_start_goes_on_to_the_end(layout: RunLayout) -> None:
    done = subprocess.run(
        [*COMMAND, "--run", str(layout.root)], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    stages = stage_lines(done.stderr)
    assert [n for n, s in stages.items() if s == "kept"] == ["data", "index", "distill", "sft"]
    assert list(stages)[-1] == "report"
    assert "MRR@100 of grpo is" in done.stdout
    assert done.stdout.strip().endswith(f"report: {layout.report}")


def test_summary_holds_what_is_promised(layout: RunLayout) -> None:
    summary = json.loads(layout.summary.read_text())
    assert summary["dataset"] == "mini"
    assert summary["seed"] == 0
    assert list(summary["stages"]) == [*TRAINING_FREE, *POLICIES]
    assert [test["against"] for test in summary["tests"]] == [*TRAINING_FREE, "base", "sft"]
    for result in summary["stages"].values():
        assert set(METRICS) | {"num_malformed", "mrr_interval"} <= set(result)
        low, high = result["mrr_interval"]
        assert 0 <= low <= result["mrr"] <= high <= 1
    assert {"data", "server", "distill", "sft", "grpo", "infer-grpo", "eval-grpo", "report"} <= set(
        summary["seconds"]
    )
    assert summary["seconds"]["grpo"] > 1
    assert summary["peak_rss_mb"] > 500
    assert summary["versions"]["verl"] == "0.9.1"


def test_every_evaluated_turn_has_one_record_everywhere(layout: RunLayout) -> None:
    num_queries = json.loads(layout.summary.read_text())["num_queries"]
    assert 0 < num_queries <= 24
    qids = [json.loads(line)["qid"] for line in layout.queries("raw").read_text().splitlines()]
    assert len(qids) == num_queries
    for policy in POLICIES:
        assert [r.qid for r in read_rewrites(layout.rewrites(policy))] == qids
    for source in (*TRAINING_FREE, *POLICIES):
        assert set(read_run(layout.eval(source) / "run.trec")) <= set(qids)


def test_training_is_logged_and_reported(layout: RunLayout) -> None:
    steps = [json.loads(line) for line in layout.metrics.read_text().splitlines()]
    grpo = [step for step in steps if step["stage"] == "grpo"]
    numbers = [step["step"] for step in grpo]
    assert numbers == sorted(set(numbers))
    # A step is lost to the log where Ctrl-C fell between its checkpoint and its line.
    assert len(set(range(1, TOTAL_STEPS + 1)) - set(numbers)) <= 1
    assert {1, TOTAL_STEPS} <= set(numbers)
    assert all("critic/score/mean" in step for step in grpo)
    page = layout.report.read_text()
    assert page.count("<svg") >= 4
    assert "Reward by step of GRPO" in page


def test_the_trained_models_say_how_they_are_asked(layout: RunLayout) -> None:
    for stage in ("sft", "grpo"):
        asking = read_asking(layout.model(stage))
        assert asking is not None
        assert (asking.style, asking.stage, asking.dataset) == ("nano", stage, "mini")
        assert (asking.max_response_tokens, asking.engine) == (96, "bm25")


def test_fourth_start_has_nothing_to_do(layout: RunLayout) -> None:
    before = layout.summary.read_bytes()
    start = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "--run", str(layout.root)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert set(stage_lines(done.stderr).values()) == {"kept"}
    assert time.monotonic() - start < 60
    assert layout.summary.read_bytes() == before
