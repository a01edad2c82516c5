"""Where a model comes from, read off the passports that its training left behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError, MissingFileError
from convsearch.texts import read_json

PASSPORT = "run.json"
CARD = "README.md"
_KNOWN = ("sft", "grpo", "merge")
BASE_KEYS = ("actor_rollout_ref.model.path", "model.path")
"""Under which verl is told the model that a training starts from."""
_DATA_KEYS = ("data.train_files",)
_BOOKKEEPING = (
    "out_dir", "time_limit_s", "threads", "dump_rollouts", "trainer.logger", "trainer.project_name",
    "trainer.experiment_name", "val_file", "train_file", "model_path", "data.train_files",
    "data.val_files", *BASE_KEYS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training on the way to the model."""

    stage: str
    """`sft` or `grpo`."""
    start: str
    """Model it started from: a folder or a name on the hub."""
    train_file: str
    settings: dict[str, object]
    """What shaped the result; paths and bookkeeping left out."""
    passport: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The trainings of a model, last one first."""

    steps: tuple[Step, ...]
    merged: Mapping[str, object] | None
    """Passport of the merging, where there was one."""

    @property
    def base_model(self) -> str:
        """What the first training started from."""
        return self.steps[-1].start


def read_provenance(model: Path, passport: Path | None = None) -> Provenance:
    """Follows the passports from the model back to the first one that is there.

    passport: of the model; else `run.json` in its folder or beside it. Raises MissingFileError
    where there is none, DataError for one that is damaged or of another stage.
    """
    first = passport or _passport_of(model)
    if first is None:
        own = model / CARD
        way_out = f", or send the card that it has with --card {own}" if own.is_file() else ""
        raise MissingFileError(
            f"{model}: no {PASSPORT} of a training in it or beside it, which the card would be "
            f"written from; name it with --passport{way_out}"
        )
    record = read_passport(first)
    merged = record if record["stage"] == "merge" else None
    steps: list[Step] = []
    seen: set[Path] = set()
    while record is not None and len(steps) < 8:
        step = _step(record, first)
        steps.append(step)
        following = _passport_of(Path(step.start))
        if following is None or following in seen:
            break
        seen.add(following)
        record = read_passport(following)
    return Provenance(steps=tuple(steps), merged=merged)


def read_passport(path: Path) -> dict[str, object]:
    """A passport of a training or a merging. Raises MissingFileError, DataError."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such passport; name the run.json of the training")
    record = read_json(path, "make the model again")
    if not isinstance(record, dict) or record.get("stage") not in _KNOWN:
        stage = record.get("stage") if isinstance(record, dict) else None
        raise DataError(
            f"{path}: the passport of {stage or 'something else'}, not of a training "
            f"({', '.join(_KNOWN)}); name the one of the model"
        )
    if not isinstance(record.get("settings"), dict):
        raise DataError(f'{path}: field "settings" is missing; make the model again')
    return record


def shown_path(path: str) -> str:
    """A name that tells nothing about the machine: hub names whole, of folders the last parts."""
    parts = Path(path).parts
    return path if not Path(path).is_absolute() and len(parts) <= 2 else "/".join(parts[-2:])


def _passport_of(model: Path) -> Path | None:
    for path in (model / PASSPORT, model.parent / PASSPORT):
        if model.is_dir() and path.is_file() and _is_ours(path):
            return path.resolve()
    return None


def _is_ours(path: Path) -> bool:
    try:
        read_passport(path)
    except DataError:
        return False
    return True


def _step(record: Mapping[str, object], where: Path) -> Step:
    settings = record["settings"]
    assert isinstance(settings, dict)
    if record["stage"] != "merge":
        return Step(
            stage=str(record["stage"]),
            start=str(settings.get("model_path", "")),
            train_file=str(settings.get("train_file", "")),
            settings=_shaping(settings),
            passport=record,
        )
    told = hydra_values(settings.get("training_overrides") or [])
    start = next((told[key] for key in BASE_KEYS if key in told), None) or settings.get("base")
    if not start:
        raise DataError(
            f"{where}: tells nothing of the training; merge with the folder hydra/ that the recipe "
            "wrote beside its checkpoints, or name the passport of the training with --passport"
        )
    return Step(
        stage="grpo" if any(key.startswith("actor_rollout_ref.") for key in told) else "sft",
        start=str(start),
        train_file=next((told[key] for key in _DATA_KEYS if key in told), ""),
        settings=_shaping(told),
        passport=record,
    )


def hydra_values(words: object) -> dict[str, str]:
    """Hydra's `key=value` words; quotes of values taken off, later words win."""
    pairs = (str(word).partition("=") for word in (words if isinstance(words, list) else []))
    return {key.lstrip("+"): value.strip("'") for key, _, value in pairs}


def _shaping(settings: Mapping[str, object]) -> dict[str, object]:
    return {
        key: value
        for key, value in settings.items()
        if key not in _BOOKKEEPING and not key.startswith("hydra.") and "/" not in str(value)
    }
