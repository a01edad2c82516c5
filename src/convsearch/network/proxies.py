"""Proxies and certificates that the environment names, looked at before a client meets them.

A proxy's address may hold a password and is never shown. httpx ends
with an error of its own for what it cannot read there, in the middle of a command.
"""

import contextlib
import importlib.util
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path

import httpx

from convsearch.errors import ConfigError

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_EXCEPT = "no_proxy"
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def check_proxies(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError that names the variable that no client can be made with."""
    for name in _CERTIFICATES:
        if (path := environment.get(name)) and not Path(path).exists():
            raise ConfigError(
                f"the environment variable {name} names {path!r}, which is not there; mend it or "
                "unset it"
            )
    for name, value in environment.items():
        if name.lower() in _PROXIES and value.strip():
            _check_proxy(name, value.strip())
        if name.lower() == _EXCEPT:
            for host in filter(None, map(str.strip, value.split(","))):
                _check_host(name, host)


def _check_proxy(name: str, value: str) -> None:
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
    except (ValueError, httpx.InvalidURL):
        raise ConfigError(
            f"the environment variable {name} names no proxy; write it as http://HOST:PORT, or "
            "unset it"
        ) from None
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigError(
            f"the environment variable {name} names a SOCKS proxy, for which the package "
            "socksio is missing; run pip install 'httpx[socks]', or unset the variable"
        )


def _check_host(name: str, host: str) -> None:
    with contextlib.suppress(ValueError):
        ipaddress.ip_network(host, strict=False)
        return
    try:
        httpx.URL(host if "://" in host else f"all://*{host}")
    except httpx.InvalidURL as error:
        bare = host[1:-1]
        in_brackets = host == f"[{bare}]"
        remedy = f"write {bare!r} without brackets" if in_brackets else "mend it or unset it"
        raise ConfigError(
            f"the environment variable {name} names {host!r}, which is no host ({error}); {remedy}"
        ) from None
