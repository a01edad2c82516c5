"""The main job: all stages, then the summary and the report."""

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from convsearch.errors import DataError
from convsearch.eval import METRICS
from convsearch.files import atomic_write, field, read_jsonl
from convsearch.infer.asked import how_to_ask
from convsearch.passport import git_revision, versions
from convsearch.pipeline.config import PipelineConfig
from convsearch.pipeline.layout import POLICIES, RunLayout
from convsearch.pipeline.rivals import TRAINING_FREE, paired_tests
from convsearch.pipeline.runner import Counts, Observer, Progress, Stage, read_finished, run_stages
from convsearch.pipeline.stages import Stages
from convsearch.pipeline.summary import Result, Summary, read_summary, write_summary
from convsearch.pipeline.training_log import collect_training_metrics
from convsearch.texts import read_json_object
from convsearch.train.checkpoint import require_model
from convsearch.train.preflight import check_run

REPORT = "report"


def run_pipeline(
    config: PipelineConfig, run: Path, observer: Observer, *, fresh: bool, command: str
) -> Summary:
    """Runs what is not finished in the folder `run`, and returns the summary of the whole.

    command: as typed, for the summary. fresh: start over. Interrupted by KeyboardInterrupt or
    SystemExit it leaves no process behind and goes on at the next call.
    Raises what `run_stages` raises, and MissingFileError or CheckpointError for a bad policy, and
    what `check_run` raises for trainings that this machine cannot run.
    """
    if config.policy is not None:
        require_model(config.policy)
        max_tokens = config.infer.sampling.max_tokens
        how_to_ask(str(config.policy), style=config.style, max_tokens=max_tokens)
    layout = RunLayout(root=run)
    if not layout.model("grpo").is_dir():
        check_run(config.sft, config.grpo, config.policy, run)
    services = ExitStack()
    stages = Stages(config, layout, services).all()

    def report(progress: Progress) -> Counts:
        from convsearch.report.page import write_report

        start = time.monotonic()
        _write_config(config, layout)
        names = [stage.name for stage in stages]
        collect_training_metrics(layout)
        summary = _summarize(config, layout, names, command)
        write_summary(layout.summary, summary)
        write_report(run)
        seconds = {**summary.seconds, REPORT: round(time.monotonic() - start, 2)}
        write_summary(layout.summary, replace(summary, seconds=seconds))
        return {}

    last = Stage(
        name=REPORT,
        run=report,
        settings={"seed": config.seed},
        needs=tuple(stage.name for stage in stages),
        outputs=(layout.config, layout.summary, layout.report, layout.metrics),
    )
    run_stages([*stages, last], layout, observer, services=services, fresh=fresh, seed=config.seed)
    return read_summary(layout.summary)


def _summarize(
    config: PipelineConfig, layout: RunLayout, names: list[str], command: str
) -> Summary:
    finished = {name: read_finished(layout, name) for name in names}
    evaluated = [record for _, record in read_jsonl(layout.queries("raw"))]
    rows = (*TRAINING_FREE, *POLICIES)
    return Summary(
        dataset=config.dataset,
        eval_split=config.data.eval_split,
        num_queries=len(evaluated),
        num_conversations=len({record["conv_id"] for record in evaluated}),
        stages={name: read_result(layout.eval(name) / "metrics.json") for name in rows},
        seconds={name: done.seconds for name, done in finished.items()},
        peak_rss_mb=max(done.peak_rss_mb for done in finished.values()),
        versions=versions(),
        seed=config.seed,
        policy=(config.policy or layout.policy).resolve().name,
        git=git_revision(),
        date=time.strftime("%Y-%m-%d"),
        command=command,
        distill_counts=finished["distill"].counts,
        mrr_depth=config.eval.topk,
        tests=paired_tests(layout, rows, seed=config.seed),
    )


def read_result(path: Path) -> Result:
    """The `metrics.json` of one evaluation. Raises MissingFileError or DataError."""
    record = read_json_object(path, "evaluate again")
    where = str(path)
    metrics = field(record, "metrics", dict, where)
    interval = field(record, "mrr_interval_95", list, where)
    if len(interval) != 2:
        raise DataError(f"{where}: mrr_interval_95 must hold two numbers")
    return Result(
        metrics={name: float(field(metrics, name, float, where)) for name in METRICS},
        mrr_interval=(float(interval[0]), float(interval[1])),
        num_malformed=field(record, "malformed", int, where),
        num_failed=field(record, "failed", int, where),
    )


def _write_config(config: PipelineConfig, layout: RunLayout) -> None:
    with atomic_write(layout.config) as out:
        json.dump(config.flat(), out, indent=2, default=str)
        out.write("\n")
