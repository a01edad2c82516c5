"""The stages of a run: which room does the work, what shapes it, what it needs, where it writes."""

import random
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.data.dataset import Dataset, load_dataset
from convsearch.errors import ConfigError
from convsearch.files import read_jsonl, read_rewrites, write_jsonl
from convsearch.pipeline.config import PipelineConfig, filled
from convsearch.pipeline.evaluation import Evaluation, evaluate_searched
from convsearch.pipeline.evaluation_files import write_evaluation
from convsearch.pipeline.layout import POLICIES, RunLayout
from convsearch.pipeline.methods import Method, choose_methods, evaluate_methods
from convsearch.pipeline.rivals import RIVALS, TRAINING_FREE
from convsearch.pipeline.runner import Counts, Progress, Stage
from convsearch.pipeline.search import SearchOptions, search_settings
from convsearch.pipeline.searched import searched_rewrites
from convsearch.train.metrics import ProgressCallback, TrainProgress
from convsearch.types import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convsearch.infer import Engine
    from convsearch.retrieval.client import RetrieverClient

SERVER = "server"
TRAINED = ("sft", "grpo")


class Stages:
    """The stages of one run, bound to its configuration and folder.

    services: the retrieval server is left in it, to be closed when the run ends.
    """

    def __init__(self, config: PipelineConfig, layout: RunLayout, services: ExitStack) -> None:
        self._config = config
        self._layout = layout
        self._services = services
        self._url = ""

    def all(self) -> list[Stage]:
        """In the order of the run, up to the evaluation."""
        return [
            self._data(),
            self._index(),
            Stage(
                name=SERVER, run=self._serve, settings={}, needs=("data", "index"), is_service=True
            ),
            self._distill(),
            self._sft(),
            self._grpo(),
            *(self._infer(policy) for policy in POLICIES),
            self._eval_training_free(),
            *(self._eval(policy) for policy in POLICIES),
        ]

    # --- data, index, server ---------------------------------------------------------------------

    def _data(self) -> Stage:
        config, folder = self._config, self._layout.data

        def run(progress: Progress) -> Counts:
            if config.source is None:
                from convsearch.data.mini import write_mini

                return write_mini(folder)
            from convsearch.data.pooled import convert_pooled

            return convert_pooled(config.source, folder, name=config.dataset)

        return Stage(
            name="data",
            run=run,
            settings={"dataset": config.dataset, "kind": config.kind},
            inputs=() if config.source is None else (config.source,),
            folders=(folder,),
            outputs=(folder / "run.json",),
        )

    def _index(self) -> Stage:
        settings, folder = self._config.index, self._layout.index

        def run(progress: Progress) -> Counts:
            from retriever_server.indexing.bm25 import build_bm25_index

            build_bm25_index(self._dataset.corpus_path, folder, k1=settings.k1, b=settings.b)
            return {}

        return Stage(
            name="index",
            run=run,
            settings=self._config.section("index"),
            needs=("data",),
            folders=(folder,),
            outputs=(folder / "manifest.json",),
        )

    def _serve(self, progress: Progress) -> Counts:
        from retriever_server.process import ServerProcess

        check_conversations(self._eval_turns)
        server = self._services.enter_context(ServerProcess())
        log = self._layout.logs / "server.log"
        self._url = server.start(self._layout.index, self._dataset.qrels_path, log)
        return {}

    # --- training --------------------------------------------------------------------------------

    def _distill(self) -> Stage:
        config, folder = self._config, self._layout.distill
        settings = filled(config.distill, style=config.style, seed=config.seed)

        def run(progress: Progress) -> Counts:
            from convsearch.distill import self_distill

            turns = self._turns("train", config.data.distill_turns)
            with self._client() as client, self._engine(config.policy) as engine:
                counts = self_distill(
                    turns,
                    self._dataset.qrels,
                    engine,
                    client,
                    settings,
                    folder,
                    search=self._search_settings(client),
                    inputs=[self._dataset.turns_path],
                    on_progress=lambda done, total: progress(done, total, "candidates"),
                )
            return asdict(counts)

        return Stage(
            name="distill",
            run=run,
            settings={
                **config.section("distill"),
                "turns": config.data.distill_turns,
                "engine": config.infer.engine,
                "style": config.style,
                "seed": config.seed,
            },
            needs=("data", "index", SERVER),
            inputs=(config.policy,),
            folders=(folder,),
            outputs=(folder / "sft_train.parquet", folder / "sft_val.parquet"),
        )

    def _sft(self) -> Stage:
        config, layout = self._config, self._layout
        settings = filled(
            config.sft,
            model_path=config.policy,
            train_file=layout.distill / "sft_train.parquet",
            val_file=layout.distill / "sft_val.parquet",
            out_dir=layout.sft,
        )

        def run(progress: Progress) -> Counts:
            from convsearch.train.sft import run_sft

            run_sft(settings, layout.logs / "sft.log", _steps(progress, "train/loss", "loss"))
            return _stage_counts(layout.sft)

        return Stage(
            name="sft",
            run=run,
            settings=config.section("sft"),
            needs=("distill",),
            folders=(layout.sft,),
            outputs=(layout.model("sft"),),
        )

    def _grpo(self) -> Stage:
        config, layout = self._config, self._layout
        train_file = layout.grpo / "grpo.parquet"
        settings = filled(
            config.grpo,
            model_path=layout.model("sft"),
            train_file=train_file,
            val_file=None,
            out_dir=layout.grpo,
            seed=config.seed,
        )

        def run(progress: Progress) -> Counts:
            from convsearch.data.parquet import write_grpo_parquet
            from convsearch.train.grpo import run_grpo

            turns = self._turns("train", config.data.grpo_turns)
            layout.grpo.mkdir(parents=True, exist_ok=True)
            write_grpo_parquet(
                train_file,
                turns,
                self._dataset.qrels,
                style=config.style,
                data_source=config.dataset,
            )
            run_grpo(
                settings,
                self._url,
                layout.logs / "grpo.log",
                layout.grpo / "metrics.jsonl",
                _steps(progress, "critic/score/mean", "reward"),
            )
            return _stage_counts(layout.grpo)

        return Stage(
            name="grpo",
            run=run,
            settings={
                **config.section("grpo"),
                "turns": config.data.grpo_turns,
                "style": config.style,
                "seed": config.seed,
            },
            needs=("data", "index", SERVER, "sft"),
            folders=(layout.grpo,),
            outputs=(layout.model("grpo"),),
        )

    # --- measuring -------------------------------------------------------------------------------

    def _infer(self, policy: str) -> Stage:
        config, folder = self._config, self._layout.infer(policy)
        trained = policy in TRAINED
        model = self._layout.model(policy) if trained else config.policy

        def run(progress: Progress) -> Counts:
            from convsearch.infer import infer_rewrites
            from convsearch.infer.runner import count_statuses

            with self._engine(model) as engine:
                rewrites = infer_rewrites(
                    self._eval_turns,
                    engine,
                    out_path=self._layout.rewrites(policy),
                    style=config.style,
                    params=config.infer.sampling,
                    seed=config.seed,
                    batch_size=config.infer.batch_size,
                    on_progress=lambda done, total: progress(done, total, "turns"),
                )
            return count_statuses(rewrites)

        return Stage(
            name=f"infer-{policy}",
            run=run,
            settings={
                **config.section("infer"),
                "split": config.data.eval_split,
                "turns": config.data.eval_turns,
                "style": config.style,
                "seed": config.seed,
            },
            needs=("data", policy) if trained else ("data",),
            inputs=() if trained else (config.policy,),
            folders=(folder,),
            outputs=(self._layout.rewrites(policy),),
        )

    def _eval_training_free(self) -> Stage:
        config, layout = self._config, self._layout

        def run(progress: Progress) -> Counts:
            turns, switches = self._eval_turns, self._dataset.topic_switches()
            done = 0
            with self._client() as client:
                settings = self._eval_passport(client)

                def write(method: Method, found: Evaluation) -> None:
                    nonlocal done
                    done += 1
                    progress(done, len(TRAINING_FREE), "rows")
                    write_evaluation(
                        layout.eval(method.name),
                        found,
                        tag=method.folder,
                        settings={**settings, "method": method.name, "trained": method.trained},
                        seed=config.seed,
                    )

                evaluate_methods(
                    choose_methods(turns, RIVALS, switches=switches),
                    client,
                    self._dataset.qrels,
                    config.eval.topk,
                    seed=config.seed,
                    on_done=write,
                )
            return {"rows": done, "num_queries": len(turns)}

        return Stage(
            name="eval-training-free",
            run=run,
            settings={**self._eval_settings(), "rows": list(TRAINING_FREE)},
            needs=("data", "index", SERVER),
            folders=tuple(layout.eval(row) for row in TRAINING_FREE),
            outputs=tuple(layout.eval(row) / "metrics.json" for row in TRAINING_FREE),
        )

    def _eval(self, policy: str) -> Stage:
        config, folder = self._config, self._layout.eval(policy)

        def run(progress: Progress) -> Counts:
            rewrites = read_rewrites(self._layout.rewrites(policy))
            switches = self._dataset.topic_switches()
            searched = searched_rewrites(self._eval_turns, rewrites, switches)
            with self._client() as client:
                found = evaluate_searched(
                    searched, client, self._dataset.qrels, config.eval.topk, seed=config.seed
                )
                settings = self._eval_passport(client)
            write_evaluation(folder, found, tag=policy, settings=settings, seed=config.seed)
            return found.counts

        return Stage(
            name=f"eval-{policy}",
            run=run,
            settings=self._eval_settings(),
            needs=("data", "index", SERVER, f"infer-{policy}"),
            folders=(folder,),
            outputs=(self._layout.queries(policy), folder / "metrics.json"),
        )

    def _eval_settings(self) -> dict[str, object]:
        """What shapes every evaluation."""
        config = self._config
        return {
            **config.section("eval"),
            "split": config.data.eval_split,
            "turns": config.data.eval_turns,
            "seed": config.seed,
        }

    def _eval_passport(self, client: "RetrieverClient") -> dict[str, object]:
        return {
            **self._config.section("eval"),
            "dataset": self._dataset.name,
            "split": self._config.data.eval_split,
            **self._search_settings(client),
        }

    # --- what stages share -----------------------------------------------------------------------

    @cached_property
    def _dataset(self) -> Dataset:
        return load_dataset(self._layout.data)

    @property
    def _eval_turns(self) -> list[Turn]:
        return self._turns(self._config.data.eval_split, self._config.data.eval_turns)

    def _turns(self, split: str, limit: int) -> list[Turn]:
        return draw_conversations(self._dataset.turns(split), limit, seed=self._config.seed)

    def _client(self) -> "RetrieverClient":
        from convsearch.retrieval.client import RetrieverClient

        return RetrieverClient(self._url)

    def _search_settings(self, client: "RetrieverClient") -> dict[str, object]:
        return search_settings(SearchOptions(index=self._layout.index), client)

    @contextmanager
    def _engine(self, model: Path) -> "Iterator[Engine]":
        from convsearch.infer import open_engine

        engine = open_engine(self._config.infer.engine, str(model))
        try:
            yield engine
        finally:
            engine.close()


def check_conversations(turns: Sequence[Turn]) -> None:
    """Before hours of training. Raises ConfigError for fewer than two conversations to measure on:
    the intervals of the report draw conversations."""
    found = len({turn.conv_id for turn in turns})
    if found < 2:
        raise ConfigError(
            f"{found} conversations to evaluate on; the report needs two or more: raise "
            "data.eval_turns, or hold out more conversations"
        )


def draw_conversations(turns: Sequence[Turn], limit: int, *, seed: int) -> list[Turn]:
    """At most `limit` turns, as whole conversations drawn by the seed, in the given order; all for
    a limit of 0. The first conversation drawn is taken whatever its length."""
    if not limit or len(turns) <= limit:
        return list(turns)
    sizes: dict[str, int] = {}
    for turn in turns:
        sizes[turn.conv_id] = sizes.get(turn.conv_id, 0) + 1
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    chosen, count = {order[0]}, sizes[order[0]]
    for conv_id in order[1:]:
        if count + sizes[conv_id] <= limit:
            chosen.add(conv_id)
            count += sizes[conv_id]
    return [turn for turn in turns if turn.conv_id in chosen]


def collect_training_metrics(layout: RunLayout) -> None:
    """Joins what the trainers logged into `metrics.jsonl` of the run: one line a step, flat."""
    lines = []
    for name in TRAINED:
        path = layout.root / name / "metrics.jsonl"
        for _, record in read_jsonl(path) if path.is_file() else ():
            data = record.get("data")
            values = data if isinstance(data, dict) else {}
            lines.append({"stage": name, "step": record.get("step"), **values})
    write_jsonl(layout.metrics, lines)


def _steps(progress: Progress, key: str, label: str) -> ProgressCallback:
    def report(step: TrainProgress) -> None:
        value = step.metrics.get(key)
        what = "steps" if value is None else f"steps, {label} {value:.3f}"
        progress(step.step, step.total_steps, what)

    return report


def _stage_counts(folder: Path) -> Counts:
    """The counts in the passport that a trainer left."""
    import json

    counts = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("counts")
    return counts if isinstance(counts, dict) else {}
