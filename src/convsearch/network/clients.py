"""Where every HTTP client of ours is made: what of the environment it follows, and what is refused.

Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, in capitals or
not), except for addresses of this machine, which are asked directly. httpx answers a bad value with
an exception of whatever kind, some of them when the first request is sent; here it is a sentence
that names the variable.
"""

import ipaddress
import os
from importlib import metadata
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from convsearch.errors import ConfigError
from convsearch.listening import is_loopback

_KINDS = ("http", "https", "all")
_SCHEMES = ("http", "https", "socks5", "socks5h")
_SOCKS_PACKAGE = "socksio"
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
"""As of httpx."""
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def http_client(
    url: str,
    *,
    direct: bool = False,
    timeout: httpx.Timeout | float | None = 5.0,
    headers: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
    follow_redirects: bool = False,
) -> httpx.Client:
    """A client for the server at `url`. direct: without proxies wherever it is; the others as of
    httpx. Raises ConfigError for settings of the environment that cannot be used."""
    trusting = _follows_environment(url, direct=direct)
    try:
        return httpx.Client(
            trust_env=trusting,
            timeout=timeout,
            headers=headers,
            params=params,
            follow_redirects=follow_redirects,
        )
    except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
        raise _unforeseen(error) from None


def async_client(
    url: str,
    *,
    timeout: httpx.Timeout | float | None = 5.0,
    headers: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
    limits: httpx.Limits = _LIMITS,
) -> httpx.AsyncClient:
    """`http_client`, for use in an event loop."""
    trusting = _follows_environment(url)
    try:
        return httpx.AsyncClient(
            trust_env=trusting,
            timeout=timeout,
            headers=headers,
            params=params,
            limits=limits,
        )
    except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
        raise _unforeseen(error) from None


def check_environment() -> list[str]:
    """The variables whose proxies and certificates would be used, if there are any; none of their
    values, which may hold passwords. Raises ConfigError that names the one that cannot be used."""
    found = getproxies()
    used = [_variable(kind) for kind in _KINDS if found.get(kind)]
    exempt = [entry.strip() for entry in found.get("no", "").split(",")]
    if "*" not in exempt:
        for kind in _KINDS:
            if (value := found.get(kind)) and (wrong := _wrong_with_proxy(value)):
                raise ConfigError(f"{_variable(kind)}: {wrong}, or unset it")
        for entry in filter(None, exempt):
            if wrong := _wrong_with_exemption(entry):
                raise ConfigError(f"{_variable('no')}: {wrong}")
    for name in _CERTIFICATES:
        if not (path := os.environ.get(name)):
            continue
        if not os.path.exists(path):  # noqa: PTH110 - of any text, also one that is no path
            raise ConfigError(f"{name}: there is no {path!r}; mend the variable, or unset it")
        used.append(name)
        try:
            httpx.create_ssl_context()
        except OSError:
            raise ConfigError(f"{name}: holds no certificates; mend the variable") from None
    return used


def _follows_environment(url: str, *, direct: bool = False) -> bool:
    try:
        host = urlsplit(url).hostname
    except ValueError:  # no address: the client says so when it is asked for it
        return False
    if direct or is_loopback(host or ""):
        return False
    check_environment()
    return True


def _wrong_with_proxy(value: str) -> str | None:
    """What is wrong with the address of a proxy, and what to do; None where nothing is. It may hold
    a password, so it is not shown."""
    value = value if "://" in value else f"http://{value}"
    scheme = value.partition("://")[0].lower()
    example = "write it as http://HOST:PORT"
    if scheme not in _SCHEMES:
        return (
            f"a proxy's address begins with {', '.join(f'{s}://' for s in _SCHEMES)}, this one "
            f"with {scheme}://; {example}"
        )
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises for what is no port
        is_whole = bool(httpx.Proxy(value).url.host) and parts.port != 0 and " " not in value
    except (httpx.InvalidURL, ValueError):
        is_whole = False
    if not is_whole:
        return f"is not the address of a proxy; {example}"
    if scheme.startswith("socks") and not _is_installed(_SOCKS_PACKAGE):
        return f"a SOCKS proxy needs the package {_SOCKS_PACKAGE}; run pip install 'httpx[socks]'"
    return None


def _wrong_with_exemption(entry: str) -> str | None:
    """What is wrong with one entry of NO_PROXY; None where nothing is."""
    if "://" in entry:
        pattern = entry
    elif _is_address(entry, 6):
        pattern = f"all://[{entry}]"
    else:
        pattern = f"all://{entry}" if _is_address(entry, 4) else f"all://*{entry}"
    try:
        httpx.URL(pattern)
    except httpx.InvalidURL:
        bare = entry.split("/")[0].strip("[]")
        advice = f"write {bare}" if _is_address(bare, 6) else "mend or remove it"
        return f"the entry {entry!r} is no host name or address; {advice}"
    return None


def _is_address(text: str, version: int) -> bool:
    """As httpx tells: with or without the length of a network behind it."""
    try:
        return ipaddress.ip_address(text.split("/")[0]).version == version
    except ValueError:
        return False


def _unforeseen(error: Exception) -> ConfigError:
    named = [*map(_variable, (*_KINDS, "no")), *_CERTIFICATES]
    there = [name for name in named if os.environ.get(name)]
    return ConfigError(
        f"{', '.join(there) or 'the proxies of this system'}: cannot be used "
        f"({type(error).__name__}); mend or unset the variable that is wrong"
    )


def _variable(kind: str) -> str:
    """The name under which the environment has it; small letters win, as everywhere."""
    small = f"{kind}_proxy"
    if os.environ.get(small):
        return small
    return next((name for name in os.environ if name.lower() == small), small.upper())


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
