"""Words that an encoder wants before every query and every passage, such as `query: ` of E5.

They belong to the index: its manifest holds both, and who opens the index cannot leave them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import CheckpointError, ConfigError, DataError
from convsearch.texts import read_json_object
from retriever_server.backends.encoder import Encoder, Vectors
from retriever_server.manifest import Manifest

_PROMPTS_FILE = "config_sentence_transformers.json"
_QUERY, _PASSAGE = "query_prefix", "passage_prefix"


@dataclass(frozen=True, kw_only=True)
class Prefixes:
    """What is put before texts; empty for encoders that want nothing, or that do it themselves."""

    query: str = ""
    passage: str = ""

    @property
    def facts(self) -> dict[str, object]:
        """Both, for the manifest; nothing where both are empty, as in indexes without them."""
        return {_QUERY: self.query, _PASSAGE: self.passage} if self.query or self.passage else {}


def prefixes_of(manifest: Manifest, folder: Path) -> Prefixes:
    """Those that an index was made with. Raises DataError for a broken manifest."""
    query, passage = manifest.get(_QUERY, ""), manifest.get(_PASSAGE, "")
    if not isinstance(query, str) or not isinstance(passage, str):
        raise DataError(
            f"{folder}: {_QUERY} and {_PASSAGE} of the manifest must be texts; rebuild the index "
            'with "convsearch index"'
        )
    return Prefixes(query=query, passage=passage)


def with_prefixes(encoder: Encoder, prefixes: Prefixes, folder: Path) -> Encoder:
    """The encoder that puts them before each text. folder: of the model.

    Raises ConfigError where the model has prompts of its own, which would come before them.
    """
    if not prefixes.facts:
        return encoder
    own = {name: text for name, text in _own_prompts(folder).items() if text}
    if own:
        raise ConfigError(
            f"{folder}: the model has prompts of its own ({own}), which are always used; leave "
            "--query-prefix and --passage-prefix out"
        )
    return PrefixedEncoder(encoder, prefixes)


class PrefixedEncoder:
    """See `Encoder`. A prefix counts among the tokens that are read of a text."""

    def __init__(self, encoder: Encoder, prefixes: Prefixes) -> None:
        self._encoder, self._prefixes = encoder, prefixes
        self.kind, self.dim, self.device = encoder.kind, encoder.dim, encoder.device

    def encode(
        self, texts: Sequence[str], *, is_query: bool, max_length: int, batch_size: int
    ) -> Vectors:
        """See `Encoder.encode`."""
        prefix = self._prefixes.query if is_query else self._prefixes.passage
        return self._encoder.encode(
            [prefix + text for text in texts],
            is_query=is_query,
            max_length=max_length,
            batch_size=batch_size,
        )


def _own_prompts(folder: Path) -> dict[str, object]:
    path = folder / _PROMPTS_FILE
    if not path.is_file():
        return {}
    try:
        prompts = read_json_object(path, "download the model again").get("prompts")
    except DataError as error:
        raise CheckpointError(str(error)) from None
    return prompts if isinstance(prompts, dict) else {}
