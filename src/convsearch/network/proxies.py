"""Proxies that the environment names, looked at before a client meets them.

httpx ends with an error of its own for what it cannot read there, in the middle of a command.
"""

import contextlib
import importlib.util
import ipaddress
import os
from collections.abc import Mapping

import httpx

from convsearch.errors import ConfigError

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_EXCEPT = "no_proxy"


def check_proxies(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError that names the variable no client can be made with."""
    for name, value in environment.items():
        if name.lower() in _PROXIES and value.strip():
            _check_proxy(name, value.strip())
        if name.lower() == _EXCEPT:
            for host in filter(None, map(str.strip, value.split(","))):
                _check_host(name, host)


def _check_proxy(name: str, value: str) -> None:
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"the environment variable {name}={value!r} names no proxy ({error}); mend it or unset "
            "it"
        ) from None
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigError(
            f"the environment variable {name}={value!r} names a SOCKS proxy, for which the package "
            "socksio is missing; run pip install 'httpx[socks]', or unset the variable"
        )


def _check_host(name: str, host: str) -> None:
    with contextlib.suppress(ValueError):
        ipaddress.ip_network(host, strict=False)
        return
    try:
        httpx.URL(host if "://" in host else f"all://*{host}")
    except httpx.InvalidURL as error:
        bare = host.strip("[]")
        remedy = f"write {bare!r} without brackets" if bare != host else "mend it or unset it"
        raise ConfigError(
            f"the environment variable {name} names {host!r}, which is no host ({error}); {remedy}"
        ) from None
