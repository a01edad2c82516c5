"""Every error a user can meet. Each message says what is wrong, where, and what to do next.

Each class is also the standard-library error a caller would expect, so code that knows nothing of
this project can catch it. The command line turns them into one sentence and exit code 2.
"""

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


class MissingFileError(ConvsearchError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class ConfigError(ConvsearchError, ValueError):
    """Settings that contradict each other or name something unknown."""


class CheckpointError(ConvsearchError, ValueError):
    """A folder that was named as a model is not one, or lacks weights."""


class DependencyError(ConvsearchError, ImportError):
    """An optional package is not installed; the message names the pip command."""


class DownloadError(ConvsearchError, ConnectionError):
    """A raw file of a data set could not be fetched from any of its addresses."""


class RetrieverError(ConvsearchError, ConnectionError):
    """The retrieval server failed after all retries. Never a reward, never an empty answer."""


class RefusedError(RetrieverError):
    """The retrieval server refused a request, which another try would not change."""

    def __init__(self, sentence: str, *, status: int) -> None:
        """status: of the answer, 400 or above."""
        super().__init__(sentence)
        self.status = status


class HubError(ConvsearchError, ConnectionError):
    """The Hugging Face hub did not give or take what was asked of it."""


class EngineError(ConvsearchError, RuntimeError):
    """An inference engine failed as a whole (not one answer of it)."""


class StageError(ConvsearchError, RuntimeError):
    """A stage of the pipeline ended badly; the message names its log."""


class WriteError(ConvsearchError, OSError):
    """A file cannot be written: no space left, no permission. What was complete before is kept."""
