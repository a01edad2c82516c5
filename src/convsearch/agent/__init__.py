"""Search agents: one pure state machine, its strategies and forms, search, fusion, squeezers."""

from convsearch.agent.escape import escape
from convsearch.agent.formats import FORMATS, FormatName, tool_format
from convsearch.agent.machine import (
    AgentState,
    Correction,
    Evidence,
    FinalAnswer,
    SearchCall,
    exhaust,
    fail,
    messages,
    observe,
    start,
    step,
    to_episode,
)
from convsearch.agent.strategies import STRATEGIES, Budget, Strategy, StrategyName, strategy
from convsearch.agent.track import TokenTrack

__all__ = [
    "FORMATS",
    "STRATEGIES",
    "AgentState",
    "Budget",
    "Correction",
    "Evidence",
    "FinalAnswer",
    "FormatName",
    "SearchCall",
    "Strategy",
    "StrategyName",
    "TokenTrack",
    "escape",
    "exhaust",
    "fail",
    "messages",
    "observe",
    "start",
    "step",
    "strategy",
    "to_episode",
    "tool_format",
]
