"""Prompts, each beside the parser of the answer it asks for."""

from convsearch.prompts.rewrite import (
    PROMPT_STYLES,
    ParsedRewrite,
    PromptStyle,
    asked_question,
    format_response,
    parse_rewrite,
    rewrite_messages,
)

__all__ = [
    "PROMPT_STYLES",
    "ParsedRewrite",
    "PromptStyle",
    "asked_question",
    "format_response",
    "parse_rewrite",
    "rewrite_messages",
]
