"""Publishing a model folder: what is sent is listed first, and looked at again afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convsearch.errors import CheckpointError, ConfigError, HubError, MissingFileError
from convsearch.files import atomic_write
from convsearch.hub.access import TOKEN_VARIABLE, hub_errors, hub_token, open_hub
from convsearch.hub.provenance import CARD
from convsearch.passport import sha256_of
from convsearch.prompts.asking import ASKING_FILE

FILE_LIST = "files.tsv"
SENT = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", ASKING_FILE,
)  # fmt: skip
"""Nothing else leaves this machine: passports hold paths, optimizer states are large."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One file that is to be published."""

    name: str
    path: Path
    size: int
    """Bytes."""
    sha256: str


def list_files(model: Path, card: Path) -> list[Listed]:
    """The files of a model and its card, by name. Raises CheckpointError where it is no model."""
    if not model.is_dir():
        raise MissingFileError(f"{model}: no such folder; name a model in Hugging Face form")
    paths = {
        path.name: path
        for path in model.iterdir()
        if path.is_file() and (path.name in SENT or path.match("model-*-of-*.safetensors"))
    }
    if "config.json" not in paths or not any(name.endswith(".safetensors") for name in paths):
        raise CheckpointError(
            f"{model}: not a model: config.json or *.safetensors is missing; make one with "
            '"convsearch merge"'
        )
    paths[CARD] = card
    return [
        Listed(name=name, path=path, size=path.stat().st_size, sha256=sha256_of(path))
        for name, path in sorted(paths.items())
    ]


def write_plan(folder: Path, card_text: str, model: Path) -> list[Listed]:
    """Writes the card and `files.tsv` (name, bytes, sha256) into `folder`; returns the files.

    Raises ConfigError where a card is there that no list of files belongs to.
    """
    if (folder / CARD).exists() and not (folder / FILE_LIST).is_file():
        raise ConfigError(
            f"{folder / CARD}: exists, and no {FILE_LIST} beside it says that this command wrote "
            "it; name another folder with --plan, or send it with --card"
        )
    with atomic_write(folder / CARD) as out:
        out.write(card_text)
    files = list_files(model, folder / CARD)
    with atomic_write(folder / FILE_LIST) as out:
        out.write("name\tbytes\tsha256\n")
        for file in files:
            out.write(f"{file.name}\t{file.size}\t{file.sha256}\n")
    return files


def check_repo_id(repo_id: str) -> None:
    """Raises ConfigError for anything but OWNER/NAME."""
    if repo_id.count("/") != 1 or not all(repo_id.split("/")) or repo_id != repo_id.strip():
        raise ConfigError(f"{repo_id}: name the repository as OWNER/NAME")


def push(
    repo_id: str, files: Sequence[Listed], *, public: bool = False, endpoint: str | None = None
) -> str:
    """Sends the files in one commit and compares what the hub then holds; returns the commit.

    The repository is made where it is not there, for its owner alone unless `public`. The token is
    that of HF_TOKEN. Raises ConfigError without one, HubError.
    """
    if hub_token() is None:
        raise ConfigError(
            f"{TOKEN_VARIABLE} is not set; put a token with the right to write into it (it is "
            "taken from nowhere else)"
        )
    api = open_hub(endpoint)
    from huggingface_hub import CommitOperationAdd

    operations = [
        CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.path) for file in files
    ]
    with hub_errors(repo_id):
        api.create_repo(repo_id, private=not public, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            operations=operations,
            commit_message="Model and card, by convsearch hub push",
        )
        info = api.model_info(repo_id, revision=commit.oid, files_metadata=True)
    there = {file.rfilename: file for file in info.siblings or []}
    for file in files:
        held = there.get(file.name)
        if held is None or held.size != file.size:
            raise HubError(f"{repo_id}: {file.name} did not arrive whole; push again")
        if held.lfs is not None and held.lfs.sha256 != file.sha256:
            raise HubError(f"{repo_id}: {file.name} arrived with other bytes; push again")
    return commit.oid
