"""The stages of a run: which room does the work, what shapes it, what it needs, where it writes."""

from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from convsearch.data.dataset import Dataset, load_dataset
from convsearch.files import read_rewrites
from convsearch.pipeline.config import PipelineConfig, filled
from convsearch.pipeline.data_stage import data_stage
from convsearch.pipeline.drawing import check_conversations, draw_conversations
from convsearch.pipeline.evaluation import Evaluation, evaluate_searched
from convsearch.pipeline.evaluation_files import write_evaluation
from convsearch.pipeline.layout import POLICIES, TRAINED, RunLayout
from convsearch.pipeline.methods import Method, choose_methods, evaluate_methods
from convsearch.pipeline.own_stages import POLICY, policy_stages, told_if_few, warn_if_few
from convsearch.pipeline.rivals import RIVALS, TRAINING_FREE
from convsearch.pipeline.runner import Counts, Progress, Stage
from convsearch.pipeline.search import SearchOptions, search_settings
from convsearch.pipeline.searched import searched_rewrites
from convsearch.pipeline.sizes import fitted_grpo, fitted_sft, held_out_turns
from convsearch.pipeline.training_log import steps_of, training_counts
from convsearch.prompts.asking import read_asking
from convsearch.train.outputs import shaping
from convsearch.types import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convsearch.infer import Engine
    from convsearch.retrieval.client import RetrieverClient

SERVER = "server"


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
            data_stage(self._config, self._layout),
            self._index(),
            *policy_stages(self._config, self._layout),
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

    @property
    def _policy(self) -> Path:
        return self._config.policy or self._layout.policy

    @property
    def _given(self) -> tuple[Path, ...]:
        """The policy as an input of a stage, where it comes from outside the run."""
        return () if self._config.policy is None else (self._config.policy,)

    @property
    def _built(self) -> tuple[str, ...]:
        """The stage that a stage needs for the policy, where the run builds it."""
        return (POLICY,) if self._config.policy is None else ()

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
            with (
                told_if_few(config),
                self._client() as client,
                self._engine(self._policy) as engine,
            ):
                counts = self_distill(
                    turns,
                    self._dataset.qrels,
                    engine,
                    client,
                    settings,
                    folder,
                    search=self._search_settings(client),
                    dataset=config.dataset,
                    told=read_asking(self._policy),
                    inputs=[self._dataset.turns_path],
                    on_progress=lambda done, total: progress(done, total, "candidates"),
                )
            warn_if_few(config, asdict(counts))
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
            needs=("data", "index", SERVER, *self._built),
            inputs=self._given,
            folders=(folder,),
            outputs=(folder / "sft_train.parquet", folder / "sft_val.parquet"),
        )

    def _sft(self) -> Stage:
        config, layout = self._config, self._layout
        settings = filled(
            config.sft,
            model_path=self._policy,
            train_file=layout.distill / "sft_train.parquet",
            val_file=layout.distill / "sft_val.parquet",
            out_dir=layout.sft,
        )

        def run(progress: Progress) -> Counts:
            from convsearch.train.rows import count_rows
            from convsearch.train.sft import run_sft

            rows = count_rows(settings.train_file, needs=("messages",))
            run_sft(fitted_sft(settings, rows), layout.logs / "sft.log", steps_of(progress))
            return training_counts(layout.sft)

        return Stage(
            name="sft",
            run=run,
            settings=shaping(config.section("sft")),
            needs=("distill",),
            folders=(layout.sft,),
            outputs=(layout.model("sft"),),
        )

    def _grpo(self) -> Stage:
        config, layout = self._config, self._layout
        train_file, val_file = layout.grpo / "grpo.parquet", layout.grpo / "val.parquet"
        chooses = config.data.grpo_val_turns > 0
        settings = filled(
            config.grpo,
            model_path=layout.model("sft"),
            train_file=train_file,
            val_file=val_file if chooses else None,
            val_freq=config.grpo.save_freq if chooses else 0,
            keep_best=chooses,
            out_dir=layout.grpo,
            seed=config.seed,
        )

        def run(progress: Progress) -> Counts:
            from convsearch.data.parquet import write_grpo_parquet
            from convsearch.train.grpo import run_grpo

            turns = self._turns("train", config.data.grpo_turns)
            files = {train_file: turns}
            if chooses:
                wanted = held_out_turns(config.data.grpo_val_turns, len(turns))
                held_out = draw_conversations(turns, wanted, seed=config.seed)
                qids = {turn.qid for turn in held_out}
                files = {train_file: [t for t in turns if t.qid not in qids], val_file: held_out}
            layout.grpo.mkdir(parents=True, exist_ok=True)
            for path, rows in files.items():
                write_grpo_parquet(
                    path,
                    rows,
                    self._dataset.qrels,
                    style=config.style,
                    data_source=config.dataset,
                )
            run_grpo(
                fitted_grpo(settings, len(files[train_file])),
                self._url,
                layout.logs / "grpo.log",
                layout.grpo / "metrics.jsonl",
                steps_of(progress),
            )
            return training_counts(layout.grpo)

        return Stage(
            name="grpo",
            run=run,
            settings={
                **shaping(config.section("grpo")),
                "turns": config.data.grpo_turns,
                "val_turns": config.data.grpo_val_turns,
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
        model = self._layout.model(policy) if trained else self._policy

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
                    told=read_asking(model),
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
            needs=("data", policy) if trained else ("data", *self._built),
            inputs=() if trained else self._given,
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
