"""What is to be said of rewrites before they are measured: malformed ones, another engine."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from convsearch.errors import DataError
from convsearch.files import read_rewrites
from convsearch.infer.first_answers import reason_of_form
from convsearch.infer.journal import passport_path
from convsearch.prompts import PROMPT_STYLES, PromptStyle
from convsearch.prompts.asking import ASKING_FILE, Asking, read_asking
from convsearch.types import Rewrite

log = logging.getLogger(__name__)


def rewrites_to_measure(path: Path) -> list[Rewrite]:
    """`read_rewrites`, with a warning where most are malformed; the passport beside the file, where
    there is one, tells how they were asked for, and so the likely reason."""
    rewrites = read_rewrites(path)
    bad = [rewrite for rewrite in rewrites if rewrite.status == "malformed"]
    if len(bad) * 2 <= len(rewrites):
        return rewrites
    style, shots = _how_asked(passport_path(path))
    reason = reason_of_form([rewrite.response for rewrite in bad], style, shots) if style else ""
    log.warning(
        "%s: %d of %d rewrites are malformed; the raw questions are searched in their place, and "
        "the figures are mostly those of raw%s",
        path,
        len(bad),
        len(rewrites),
        f". They were asked for in prompt style {style}. Likely reason: {reason}" if style else "",
    )
    return rewrites


def warn_of_another_engine(path: Path, engine: object) -> None:
    """path: of rewrites; engine: what measures them, as `search_settings` says it. Warns where the
    model that wrote them was trained for the ranks of another engine or index: they may find less
    there. Silent where the passport names no model's `convsearch.json`, or that is gone."""
    told = _told_by(passport_path(path))
    if told is None or told.engine is None or not isinstance(engine, Mapping):
        return
    there = (told.engine, told.index_fingerprint)
    here = (engine.get("engine"), engine.get("fingerprint"))
    if there != here:
        log.warning(
            "%s: the model was trained for the ranks of %s, and is measured with %s",
            path,
            _shown(*there, told.dataset),
            _shown(*here, None),
        )


def _shown(engine: object, fingerprint: object, dataset: str | None) -> str:
    of = f" of {dataset}" if dataset else ""
    return f"{engine}{of} (index {str(fingerprint)[:12] if fingerprint else 'not recorded'})"


def _told_by(passport: Path) -> Asking | None:
    inputs = _record(passport).get("inputs")
    names = [Path(str(name)) for name in (inputs if isinstance(inputs, Mapping) else ())]
    folder = next((path.parent for path in names if path.name == ASKING_FILE), None)
    try:
        return read_asking(folder) if folder is not None else None
    except DataError:
        return None


def _how_asked(passport: Path) -> tuple[PromptStyle | None, int]:
    """Prompt style and worked examples; None where the passport does not tell."""
    settings = _record(passport).get("settings")
    if not isinstance(settings, Mapping) or settings.get("style") not in tuple(PROMPT_STYLES):
        return None, 0
    shots = settings.get("shots")
    return settings["style"], shots if isinstance(shots, int) else 0


def _record(passport: Path) -> Mapping[str, object]:
    try:
        record = json.loads(passport.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
