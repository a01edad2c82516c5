"""Prompts, each beside the parser of the answer it asks for."""

from convsearch.prompts.conversation import asked_question
from convsearch.prompts.rewrite import (
    PROMPT_STYLES,
    TRAINED_STYLES,
    PromptStyle,
    TrainedStyle,
    parse_response,
    rewrite_messages,
    style_of_chat,
    trained_style,
    well_formed_response,
)
from convsearch.prompts.tags import ParsedRewrite, format_response, parse_rewrite
from convsearch.prompts.template import PromptTemplate, read_template
from convsearch.prompts.thoughts import with_thought

__all__ = [
    "PROMPT_STYLES",
    "TRAINED_STYLES",
    "ParsedRewrite",
    "PromptStyle",
    "PromptTemplate",
    "TrainedStyle",
    "asked_question",
    "format_response",
    "parse_response",
    "parse_rewrite",
    "read_template",
    "rewrite_messages",
    "style_of_chat",
    "trained_style",
    "well_formed_response",
    "with_thought",
]
