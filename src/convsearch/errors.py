"""Every error a user can meet. Each message says what is wrong, where, and what to do next.

Each class is also the standard-library error a caller would expect, so code that knows nothing of
this project can catch it. The command line turns them into one sentence and exit code 2.
"""

from collections.abc import Sequence
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]


def install_command(extra: str) -> str:
    """What installs an extra: of the checkout that this code runs from, or of the package."""
    if (_CHECKOUT / "pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]' in {_CHECKOUT}"
    return f"pip install 'convsearch[{extra}]'"


class ConvsearchError(Exception):
    """Base of all errors meant for the person at the keyboard."""


class DataError(ConvsearchError, ValueError):
    """A file holds something it must not: a bad line, a wrong type, an unknown or repeated id."""


class UnknownPassageError(DataError):
    """Passages were asked for by ids that the index does not have."""

    def __init__(self, message: str, doc_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.doc_ids = tuple(doc_ids)


class MissingFileError(ConvsearchError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class ConfigError(ConvsearchError, ValueError):
    """Settings that contradict each other or name something unknown."""


class CheckpointError(ConvsearchError, ValueError):
    """A folder that was named as a model is not one, or lacks weights."""


class PromptError(CheckpointError):
    """One prompt that a model cannot be given: its chat template refuses the chat, or its tokenizer
    the text. Other prompts may well do."""


class DependencyError(ConvsearchError, ImportError):
    """An optional package is not installed; the message names the pip command."""


class DownloadError(ConvsearchError, ConnectionError):
    """A raw file of a data set could not be fetched from any of its addresses."""


class RetrieverError(ConvsearchError, ConnectionError):
    """The retrieval server failed after all retries. Never a reward, never an empty answer."""


class RefusedError(RetrieverError):
    """The retrieval server answered that the request cannot be met; asking again would not help."""

    def __init__(self, message: str, *, status: int, unknown_ids: Sequence[str] = ()) -> None:
        """status: of the answer, 400 or above."""
        super().__init__(message)
        self.status = status
        self.unknown_ids = tuple(unknown_ids)
        """Passage ids of the request that its index does not have, where it names them."""


class HubError(ConvsearchError, ConnectionError):
    """The Hugging Face hub did not give or take what was asked of it."""


class EngineError(ConvsearchError, RuntimeError):
    """An inference engine failed as a whole (not one answer of it)."""


class StageError(ConvsearchError, RuntimeError):
    """A stage of the pipeline ended badly; the message names its log."""


class WriteError(ConvsearchError, OSError):
    """A file cannot be written: no space left, no permission. What was complete before is kept."""
