"""What `convsearch agent chat` prints: everything that was said, and nothing that commands."""

import io

from agent_case import answer, begin, call, play
from rich.console import Console

from convsearch.agent import to_episode
from convsearch.cli.agent_view import TurnView

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"


def test_a_model_cannot_command_the_terminal():
    out = io.StringIO()
    view = TurnView(Console(file=out, highlight=False, width=60))
    texts = [call("plain", f"who {HOSTILE}", think=f"[red]{HOSTILE}"), answer(f"Ada {HOSTILE}")]
    state = play(begin(), texts, "a passage")
    view.show(state)
    view.end(to_episode(state))
    said = out.getvalue()
    assert "Ada" in said
    assert "[red]" in said
    assert not set("\x1b\x07\x9b\u202e") & set(said)
