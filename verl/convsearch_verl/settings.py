"""How the reward side reaches the retrieval server: the node `retriever` of the configuration."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from convsearch.errors import ConfigError
from convsearch.rewards.shapes import check_shape

URL_VARIABLE = "RETRIEVER_URL"


@dataclass(frozen=True, kw_only=True)
class RetrieverSettings:
    """One server, and how patient to be with it."""

    url: str
    """Address of the server, with or without `/retrieve`."""
    topk: int = 100
    """Depth to which the gold passages are looked for; deeper counts as not found."""
    timeout_s: float = 120.0
    """Longest wait for one request, all attempts together."""
    attempts: int = 6
    """Tries for one request before the run stops."""
    batch_size: int = 64
    """Most queries in one request."""
    max_wait_s: float = 0.05
    """Longest time that a query waits for company before its request leaves."""
    reward: str = "piecewise"
    """Shape of the reward, a name in `convsearch.rewards.shapes`; the paper's by default."""


def retriever_settings(node: Mapping[str, object] | None) -> RetrieverSettings:
    """Checked settings from the configuration node; without a node, from `RETRIEVER_URL` alone.

    Raises ConfigError for an unset address, an unknown key, or a value of the wrong kind or size.
    """
    values = dict(node) if node is not None else {"url": os.environ.get(URL_VARIABLE)}
    unknown = sorted(values.keys() - {f.name for f in fields(RetrieverSettings)})
    if unknown:
        raise ConfigError(f"retriever.{unknown[0]}: no such setting; see RetrieverSettings")
    url = values.pop("url", None)
    if not isinstance(url, str) or not url.strip():
        raise ConfigError(
            "the reward manager rewrite_r1 has no retrieval server: start one with "
            f'"convsearch serve" and set {URL_VARIABLE} or retriever.url to its address'
        )
    check_shape(values.get("reward", RetrieverSettings.reward))
    for name, value in values.items():
        if name == "reward":
            continue
        whole = name in ("topk", "attempts", "batch_size")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise ConfigError(f"retriever.{name} must be a number, found {value!r}")
        if value < 0 or (value == 0 and name != "max_wait_s"):
            raise ConfigError(f"retriever.{name} must be above 0, found {value!r}")
    return RetrieverSettings(url=url.strip(), **values)  # pyright: ignore[reportArgumentType]
