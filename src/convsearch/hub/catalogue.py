"""What the reproduction needs of the hub, by short names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convsearch.errors import ConfigError

RepoType = Literal["model", "dataset"]


@dataclass(frozen=True, kw_only=True)
class HubEntry:
    """One repository of the hub."""

    name: str
    """Short name: what a user types, and the folder of the download."""
    repo_id: str
    repo_type: RepoType = "model"
    about: str = ""
    """What it is for, in a few words."""
    group: str = ""
    """Name of the set it belongs to."""


def _released() -> list[HubEntry]:
    """The models and the self-distilled data that the authors of ConvSearch-R1 published."""
    entries = []
    for model in ("Qwen2.5-3B", "Llama3.2-3B"):
        for dataset in ("TopiOCQA", "QReCC"):
            key = f"{model}-{dataset}".lower()
            entries.append(
                HubEntry(
                    name=f"convsearch-r1-{key}",
                    repo_id=f"BeastyZ/{model}-ConvSearch-R1-{dataset}",
                    about=f"released policy, trained on {dataset} by GRPO",
                    group="released",
                )
            )
            entries.append(
                HubEntry(
                    name=f"sft-{key}",
                    repo_id=f"BeastyZ/{model}-SFT-{dataset}",
                    repo_type="dataset",
                    about=f"its self-distilled rewrites of {dataset}",
                    group="sft",
                )
            )
    return entries


CATALOGUE = (
    *_released(),
    HubEntry(
        name="ance",
        repo_id="sentence-transformers/msmarco-roberta-base-ance-firstp",
        about="ANCE encoder, the one the authors recommend",
        group="encoders",
    ),
    HubEntry(
        name="ance-castorini",
        repo_id="castorini/ance-msmarco-passage",
        about="ANCE encoder, their other recommendation",
        group="encoders",
    ),
    HubEntry(
        name="ance-paper",
        repo_id="3ricL/ad-hoc-ance-msmarco",
        about="ANCE encoder of the paper's tables",
        group="encoders",
    ),
    HubEntry(
        name="e5-base-v2",
        repo_id="intfloat/e5-base-v2",
        about="E5 encoder, which search agents search wiki-18 with",
        group="agents",
    ),
    HubEntry(
        name="qwen2.5-3b",
        repo_id="Qwen/Qwen2.5-3B-Instruct",
        about="where the training starts",
        group="base",
    ),
    HubEntry(
        name="llama3.2-3b",
        repo_id="meta-llama/Llama-3.2-3B-Instruct",
        about="where the training starts; its licence must be accepted on the hub",
        group="base",
    ),
)
GROUPS = tuple(dict.fromkeys(entry.group for entry in CATALOGUE))


def chosen_entries(names: Sequence[str]) -> list[HubEntry]:
    """Entries by name or group, each once, in the catalogue's order; `OWNER/NAME` and
    `datasets/OWNER/NAME` name any other repository. Raises ConfigError for an unknown name."""
    wanted: dict[str, HubEntry] = {}
    for name in names:
        found = [entry for entry in CATALOGUE if name in (entry.name, entry.group, entry.repo_id)]
        if not found and "/" in name:
            is_dataset = name.startswith("datasets/")
            repo_id = name.removeprefix("datasets/")
            if repo_id.count("/") == 1 and all(repo_id.split("/")):
                kind: RepoType = "dataset" if is_dataset else "model"
                found = [HubEntry(name=repo_id.replace("/", "--"), repo_id=repo_id, repo_type=kind)]
        if not found:
            raise ConfigError(
                f"{name}: not in the catalogue; name a set ({', '.join(GROUPS)}), an entry of "
                '"convsearch hub list", or a repository as OWNER/NAME or datasets/OWNER/NAME'
            )
        wanted.update((entry.name, entry) for entry in found)
    return list(wanted.values())
