"""Rewrites that are mostly malformed: an evaluation of them measures the raw questions."""

import json
import logging
from pathlib import Path

from convsearch.files import read_rewrites
from convsearch.infer.first_answers import reason_of_form
from convsearch.infer.journal import passport_path
from convsearch.prompts import PROMPT_STYLES, PromptStyle
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


def _how_asked(passport: Path) -> tuple[PromptStyle | None, int]:
    """Prompt style and worked examples; None where the passport does not tell."""
    try:
        settings = json.loads(passport.read_text(encoding="utf-8"))["settings"]
        style, shots = settings["style"], settings["shots"]
    except (OSError, ValueError, LookupError, TypeError):
        return None, 0
    return (style, shots) if style in tuple(PROMPT_STYLES) else (None, 0)
