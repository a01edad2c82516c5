"""How an agent writes a call or an answer, and how results come back: each form with its parser.

| form | a call | results | where they go |
| --- | --- | --- | --- |
| `plain` | `<search>`, one query a line | `<results>` | a message to the model |
| `nano` | as `plain`, and the prompt is the bare question | `<results>` | a message to the model |
| `hermes` | `<tool_call>` with JSON, `query_list` | `<tool_response>` | a message to the model |
| `search_r1` | `<search>` with one query | `<information>` | inside the model's own turn |

All end with `<answer>`. `nano` is for small policies that were taught the form and could not
follow an instruction. `hermes` is the form of Qwen's chat template and of the ExpandSearch
checkpoint (arXiv 2510.10009), `search_r1` that of Search-R1's (arXiv 2503.09516); tags are
theirs, the sentences around them are ours. Only text that the model wrote is ever parsed.
"""

import json
from dataclasses import dataclass
from typing import Literal, get_args

from convsearch.agent.blocks import Block, find_blocks, is_well_formed, without_thoughts
from convsearch.agent.escape import unescape
from convsearch.errors import ConfigError

FormatName = Literal["plain", "nano", "hermes", "search_r1"]
FORMATS: tuple[str, ...] = get_args(FormatName)
TOOL_NAME = "search"
Fault = Literal[
    "no_action", "unclosed", "not_json", "unknown_tool", "bad_arguments", "empty_query",
    "empty_answer", "repeated_call", "no_search_allowed",
]  # fmt: skip
"""Why a turn of the model is neither a call nor an answer."""


@dataclass(frozen=True, kw_only=True)
class ParsedTurn:
    """What one text of the model asks for: queries, or an answer, or neither (`fault`)."""

    queries: tuple[str, ...] = ()
    """As the model wrote them: not yet capped, cleaned or de-duplicated."""
    answer: str | None = None
    fault: Fault | None = None
    well_formed: bool = False
    """Exactly one thought, then exactly one action, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """One form of calls and results."""

    name: FormatName
    call_tag: str
    result_tag: str
    inline: bool
    """Results stand inside the model's own turn instead of in a message of their own."""
    instructs: bool = True
    """The prompt begins with the rules; else it is the question alone."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings after which generation ends; empty where the model ends its turns itself."""
        return (f"</{self.call_tag}>", "</answer>") if self.inline else ()

    def parse(self, text: str) -> ParsedTurn:
        """The action of one text of the model. Never raises, linear in its length.

        The first action decides. A call that stands before an answer is run (the answer was a
        guess); several calls in a row are one. Of several answers the last counts. What a thought
        mentions is no action, except in the inline form, whose generation ends there.
        """
        visible = text if self.inline else without_thoughts(text)
        blocks, unclosed = find_blocks(visible, (self.call_tag, "answer"))
        if not blocks:
            return ParsedTurn(fault="unclosed" if unclosed else "no_action")
        well_formed = is_well_formed(text, (self.call_tag, "answer"))
        first = blocks[0].tag
        same: list[Block] = []
        for block in blocks[:1] if self.inline else blocks:
            if block.tag != first:
                break
            same.append(block)
        if first == "answer":
            answer = unescape(same[-1].content).strip()
            if not answer:
                return ParsedTurn(fault="empty_answer")
            return ParsedTurn(answer=answer, well_formed=well_formed)
        queries: list[str] = []
        for block in same:
            found = self._queries(block.content)
            if not isinstance(found, list):
                return ParsedTurn(fault=found)
            queries += found
        if not any(query.strip() for query in queries):
            return ParsedTurn(fault="empty_query")
        return ParsedTurn(queries=tuple(queries), well_formed=well_formed)

    def render_call(self, queries: list[str]) -> str:
        """The call with these queries, as the model should write it."""
        if self.name == "hermes":
            call = {"name": TOOL_NAME, "arguments": {"query_list": queries}}
            return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"
        inner = f" {queries[0]} " if self.inline else "\n{}\n".format("\n".join(queries))
        return f"<{self.call_tag}>{inner}</{self.call_tag}>"

    def render_results(self, escaped: str) -> str:
        """The text that brings results back. escaped: went through `escape`."""
        block = f"<{self.result_tag}>\n{escaped}\n</{self.result_tag}>"
        return f"\n\n{block}\n\n" if self.inline else block

    def _queries(self, content: str) -> list[str] | Fault:
        if self.name in ("plain", "nano"):
            return [line for line in content.split("\n") if line.strip()]
        if self.inline:
            return [" ".join(content.split())]
        return _json_queries(content)


def _json_queries(content: str) -> list[str] | Fault:
    try:
        call = json.loads(content)
        arguments = call.get("arguments") if isinstance(call, dict) else None
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
    except (ValueError, RecursionError):
        return "not_json"
    if not isinstance(call, dict):
        return "not_json"
    if call.get("name") != TOOL_NAME:
        return "unknown_tool"
    given = arguments.get("query_list") if isinstance(arguments, dict) else None
    queries = [given] if isinstance(given, str) else given
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        return "bad_arguments"
    return queries


_FORMATS = {
    "plain": ToolFormat(name="plain", call_tag="search", result_tag="results", inline=False),
    "nano": ToolFormat(
        name="nano", call_tag="search", result_tag="results", inline=False, instructs=False
    ),
    "hermes": ToolFormat(
        name="hermes", call_tag="tool_call", result_tag="tool_response", inline=False
    ),
    "search_r1": ToolFormat(
        name="search_r1", call_tag="search", result_tag="information", inline=True
    ),
}


def tool_format(name: str) -> ToolFormat:
    """The form of this name. Raises ConfigError for an unknown one."""
    if name not in _FORMATS:
        raise ConfigError(f"unknown tool format {name!r}; choose one of {', '.join(FORMATS)}")
    return _FORMATS[name]
