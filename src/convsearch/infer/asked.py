"""How a model is asked: as the user says, else as its folder says, else the usual way."""

import logging
from dataclasses import dataclass
from pathlib import Path

from convsearch.prompts import PromptStyle, PromptTemplate
from convsearch.prompts.asking import ASKING_FILE, Asking, read_asking, template_sha256

log = logging.getLogger(__name__)

USUAL_STYLE: PromptStyle = "instruct"
USUAL_MAX_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What came of it."""

    style: PromptStyle
    max_tokens: int
    told: Asking | None
    """What the model's folder says."""
    source: Path | None = None
    """The file that says it."""

    @property
    def files(self) -> list[Path]:
        """For the inputs of a passport."""
        return [self.source] if self.source else []


def how_to_ask(
    model: str | None,
    *,
    style: PromptStyle | None = None,
    max_tokens: int | None = None,
    prompt_file: PromptTemplate | None = None,
    usual_style: PromptStyle = USUAL_STYLE,
    usual_max_tokens: int = USUAL_MAX_TOKENS,
) -> Asked:
    """style, max_tokens, prompt_file: what the user says, None where nothing; it is done, with a
    warning where the folder says otherwise. usual_*: where neither says anything.

    Raises DataError where the folder's file is none (`read_asking`).
    """
    told = read_asking(model) if model else None
    asked = Asked(
        style=style or (told.style if told else usual_style),
        max_tokens=max_tokens or (told and told.max_response_tokens) or usual_max_tokens,
        told=told,
        source=Path(model) / ASKING_FILE if model and told else None,
    )
    if told is None:
        return asked
    where = asked.source
    if asked.style != told.style:
        log.warning(
            "--prompt %s: the model was trained with prompt style %s (%s) and may answer "
            "malformed; leave --prompt out",
            asked.style,
            told.style,
            where,
        )
    elif prompt_file is not None:
        log.warning(
            "%s: the model was trained with the words of prompt style %s (%s) and may answer "
            "malformed; leave --prompt-file out",
            prompt_file.where,
            told.style,
            where,
        )
    elif told.template_sha256 != template_sha256(told.style):
        log.warning(
            "%s: the model was trained with other words of prompt style %s than this version has "
            "(hash there %s, now %s) and may answer malformed; use the version that trained it, "
            "or train again",
            where,
            told.style,
            told.template_sha256[:12],
            template_sha256(told.style)[:12],
        )
    trained = told.max_response_tokens
    if trained is not None and asked.max_tokens != trained:
        is_short = asked.max_tokens < trained
        log.warning(
            "--max-tokens %d: the model was trained with responses of up to %d tokens (%s); %s",
            asked.max_tokens,
            trained,
            where,
            "longer ones will be cut" if is_short else "it has not learnt to go on after that",
        )
    return asked
