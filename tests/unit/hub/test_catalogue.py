"""Names of what is downloaded."""

import re

import pytest

from convsearch.errors import ConfigError
from convsearch.hub.catalogue import CATALOGUE, GROUPS, chosen_entries


def test_names_are_unique_and_safe_as_folders() -> None:
    names = [entry.name for entry in CATALOGUE]
    assert len({*names, *GROUPS}) == len(names) + len(GROUPS)
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names)


def test_the_released_models_and_data_are_there() -> None:
    released = {entry.repo_id for entry in chosen_entries(["released"])}
    models, sets = ("Qwen2.5-3B", "Llama3.2-3B"), ("TopiOCQA", "QReCC")
    assert released == {f"BeastyZ/{m}-ConvSearch-R1-{d}" for m in models for d in sets}
    data = chosen_entries(["sft"])
    assert {entry.repo_id for entry in data} == {
        f"BeastyZ/{m}-SFT-{d}" for m in models for d in sets
    }
    assert {entry.repo_type for entry in data} == {"dataset"}


def test_sets_names_and_repositories() -> None:
    chosen = chosen_entries(["ance", "encoders", "me/mine", "datasets/me/rows", "me/mine"])
    assert [entry.name for entry in chosen] == [
        "ance", "ance-castorini", "ance-paper", "me--mine", "me--rows",
    ]  # fmt: skip
    assert [entry.repo_type for entry in chosen[-2:]] == ["model", "dataset"]


@pytest.mark.parametrize("name", ["bert", "a/b/c", "/x", "datasets/x", ""])
def test_an_unknown_name_is_a_sentence(name: str) -> None:
    with pytest.raises(ConfigError, match="not in the catalogue"):
        chosen_entries([name])
