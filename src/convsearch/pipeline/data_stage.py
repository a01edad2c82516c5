"""The first stage: the embedded data set, a converted one, or a data set folder as it is."""

import shutil
from pathlib import Path

from convsearch.data.dataset import PASSPORT, load_dataset
from convsearch.data.staging import staged_folder
from convsearch.passport import write_passport
from convsearch.pipeline.config import PipelineConfig
from convsearch.pipeline.layout import RunLayout
from convsearch.pipeline.own_run import dataset_files
from convsearch.pipeline.runner import Counts, Progress, Stage


def data_stage(config: PipelineConfig, layout: RunLayout) -> Stage:
    """Writes the data set of the run."""
    folder = layout.data

    def run(progress: Progress) -> Counts:
        if config.source is None:
            from convsearch.data.mini import write_mini

            return write_mini(folder)
        if config.kind == "folder":
            return _copy_dataset(config.source, folder)
        from convsearch.data.pooled import convert_pooled

        return convert_pooled(config.source, folder, name=config.dataset)

    return Stage(
        name="data",
        run=run,
        settings={"dataset": config.dataset, "kind": config.kind},
        inputs=_inputs_of(config),
        folders=(folder,),
        outputs=(folder / PASSPORT,),
    )


def _inputs_of(config: PipelineConfig) -> tuple[Path, ...]:
    """The files outside the run that its data are made of."""
    if config.source is None:
        return ()
    if config.kind != "folder":
        return (config.source,)
    # a passport holds the time it was written: the same data made again are the same
    return tuple(path for path in dataset_files(config.source) if path.name != PASSPORT)


def _copy_dataset(source: Path, folder: Path) -> Counts:
    """Copies the files of a data set folder; what else lies there is left."""
    with staged_folder(folder) as staging:
        for path in dataset_files(source):
            shutil.copyfile(path, staging / path.name)
        if not (staging / PASSPORT).is_file():
            settings = {"name": load_dataset(source).name, "source": str(source)}
            write_passport(staging / PASSPORT, stage="data", settings=settings)
    data = load_dataset(folder)
    splits = sorted({turn.split for turn in data.all_turns})
    return {f"num_turns_{split}": len(data.turns(split)) for split in splits}
