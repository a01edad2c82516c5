"""The model card: written from passports and evaluations alone, so that it cannot say more."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import DataError, MissingFileError
from convsearch.eval import METRICS, metric_label
from convsearch.hub.provenance import Provenance, Step, shown_path
from convsearch.prompts.asking import Asking
from convsearch.texts import read_json_object, read_text

STAGE_NAMES = {
    "sft": "fine-tuning on the model's own best rewrites (SFT)",
    "grpo": "reinforcement learning by the rank of the gold passage (GRPO)",
}
_TAGS = ["conversational-search", "query-rewriting", "convsearch"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One evaluation, as its folder tells it."""

    dataset: str
    split: str
    retriever: str
    record: Mapping[str, object]
    """What `metrics.json` holds."""

    @property
    def metrics(self) -> dict[str, float]:
        """Means, of the metrics that every evaluation has."""
        values = self.record["metrics"]
        assert isinstance(values, dict)
        return {name: float(values[name]) for name in METRICS if name in values}

    def interval(self, metric: str) -> tuple[float, float] | None:
        """95 % bootstrap interval by conversation, where the evaluation has one."""
        found = self.record.get("mrr_interval_95") if metric == "mrr" else None
        every = self.record.get("intervals_95")
        if isinstance(every, dict):
            found = every.get(metric, found)
        if not isinstance(found, list | tuple):
            return None
        low, high = found
        return float(low), float(high)

    @property
    def note(self) -> str:
        """The convention of the means as a sentence; empty where it is not told."""
        note = str(self.record.get("note", ""))
        return note[:1].upper() + note[1:]

    def count(self, name: str) -> int:
        """One of the counts, 0 where it is not told."""
        value = self.record.get(name, 0)
        return value if isinstance(value, int) else 0


def read_evaluation(folder: Path) -> Measured:
    """Reads metrics.json and run.json of "convsearch eval". Raises MissingFileError, DataError."""
    records: list[dict[str, object]] = []
    for path in (folder / "metrics.json", folder / "run.json"):
        if not path.is_file():
            raise MissingFileError(
                f'{path}: no such file; name a folder that "convsearch eval" made'
            )
        records.append(read_json_object(path, "evaluate again"))
    metrics, passport = records
    settings = passport.get("settings")
    if not isinstance(metrics.get("metrics"), dict) or not isinstance(settings, dict):
        raise DataError(f"{folder}: not a finished evaluation; evaluate again")
    return Measured(
        dataset=str(settings.get("dataset", "unknown")),
        split=str(settings.get("split", "unknown")),
        retriever=shown_path(str(settings.get("retriever", "unknown"))),
        record=metrics,
    )


def read_card(path: Path) -> str:
    """A card that somebody wrote. Raises MissingFileError, and DataError where it is no text or
    does not begin with the block of metadata that the hub reads."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    text = read_text(path)
    if not text.startswith("---\n") or "\n---\n" not in text:
        raise DataError(
            f"{path}: no metadata; a card begins with lines of YAML between two lines of ---"
        )
    return text


def model_card(
    repo_id: str,
    provenance: Provenance,
    evaluations: Sequence[Measured],
    *,
    base_model: str | None = None,
    license_id: str | None = None,
    asking: Asking | None = None,
) -> str:
    """The text of README.md. base_model: instead of what the passports tell. asking: what the
    model's folder says of how to ask it."""
    from jinja2 import Environment, PackageLoader

    base = base_model or shown_path(provenance.base_model)
    first = provenance.steps[0]
    environment = Environment(
        loader=PackageLoader("convsearch.hub", "templates"),
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    return environment.get_template("card.md").render(
        header=_header(repo_id, base, evaluations, license_id),
        repo_id=repo_id,
        base=base,
        steps=[_described(step) for step in reversed(provenance.steps)],
        merged=provenance.merged,
        versions=first.passport.get("versions", {}),
        git=first.passport.get("git"),
        evaluations=evaluations,
        rows=[(measured, _rows(measured)) for measured in evaluations],
        license_id=license_id,
        asking=asking,
    )


def _header(
    repo_id: str, base: str, evaluations: Sequence[Measured], license_id: str | None
) -> str:
    """YAML; each value is written as JSON, which YAML contains."""
    fields: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "language": ["en"],
        "tags": _TAGS,
    }
    if license_id:
        fields["license"] = license_id
    if base.count("/") == 1:
        fields["base_model"] = base
    if evaluations:
        name = repo_id.split("/")[-1]
        fields["model-index"] = [{"name": name, "results": [_result(m) for m in evaluations]}]
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in fields.items())


def _result(measured: Measured) -> dict[str, object]:
    dataset = {
        "name": f"{measured.dataset} ({measured.split}, {measured.retriever})",
        "type": measured.dataset,
        "split": measured.split,
    }
    return {
        "task": {"type": "text-retrieval", "name": "conversational query rewriting"},
        "dataset": dataset,
        "metrics": [
            {"type": name, "name": _label(name, measured), "value": round(value, 6)}
            for name, value in measured.metrics.items()
        ],
    }


def _rows(measured: Measured) -> list[tuple[str, str, str]]:
    rows = []
    for name, value in measured.metrics.items():
        interval = measured.interval(name)
        shown = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "not computed"
        rows.append((_label(name, measured), f"{value:.4f}", shown))
    return rows


def _label(metric: str, measured: Measured) -> str:
    return metric_label(metric, measured.count("mrr_depth"))


def _described(step: Step) -> dict[str, object]:
    passport = step.passport
    is_merged = passport.get("stage") == "merge"
    counts = None if is_merged else passport.get("counts")
    seed = step.settings.get("data.seed") if is_merged else passport.get("seed")
    return {
        "what": STAGE_NAMES[step.stage],
        "start": shown_path(step.start),
        "train_file": shown_path(step.train_file) if step.train_file else "not recorded",
        "settings": sorted(step.settings.items()),
        "counts": sorted(counts.items()) if isinstance(counts, dict) else [],
        "made_at": ("weights joined: " if is_merged else "finished: ")
        + str(passport.get("made_at", "not recorded")),
        "seed": "not recorded" if seed is None else seed,
    }
