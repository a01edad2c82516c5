"""An engine that echoes, and breaks on words of the prompt. It is opened in processes of a pool."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import EngineError
from convsearch.infer.echo_engine import EchoEngine
from convsearch.infer.engine import Generation, SamplingParams
from convsearch.types import ChatMessage


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Which prompts break the engine: those that hold the word."""

    folder: Path
    """For what processes tell each other."""
    kills: str | None = None
    """The process is killed, each time."""
    kills_once: str | None = None
    """The process is killed, the first time."""
    hangs_once: str | None = None
    """No answer ever, the first time."""
    raises: str | None = None
    """An error that nobody expects, each time."""
    refuses: str | None = None
    """The engine says that it cannot answer."""
    garbles: str | None = None
    """A response that is no rewrite."""
    dies_when_opened: int = 0
    """So many engines end before they are open."""


def open_faulty_engine(faults: Faults) -> "FaultyEngine":
    """For `functools.partial`, so that a pool can open it in its processes."""
    for i in range(faults.dies_when_opened):
        if _first_time(faults.folder / f"opened-{i}"):
            os.kill(os.getpid(), signal.SIGKILL)
    return FaultyEngine(faults)


class FaultyEngine(EchoEngine):
    """Each block that it is given leaves a line `pid num_prompts gpus` in `blocks.txt`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        faults, text = self._faults, "\n".join(chat[-1]["content"] for chat in chats)
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "-")
        with (faults.folder / "blocks.txt").open("a") as told:
            told.write(f"{os.getpid()} {len(chats)} {gpus}\n")
        if faults.kills and faults.kills in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if faults.kills_once and faults.kills_once in text and _first_time(faults.folder / "kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if faults.hangs_once and faults.hangs_once in text and _first_time(faults.folder / "hang"):
            time.sleep(3600)
        if faults.raises and faults.raises in text:
            raise RuntimeError("nobody expects this")
        if faults.refuses and faults.refuses in text:
            raise EngineError("the checkpoint is damaged")
        answers = super().generate(chats, params, seeds)
        return [
            Generation(text="no rewrite", num_tokens=2)
            if faults.garbles and faults.garbles in chat[-1]["content"]
            else answer
            for chat, answer in zip(chats, answers, strict=True)
        ]


def _first_time(marker: Path) -> bool:
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
