"""What our servers ask before they listen: an address, who reaches it, the key that guards it."""

import ipaddress
import os
import re
import socket
from pathlib import Path

from convsearch.errors import ConfigError, MissingFileError

LOOPBACK = "127.0.0.1"
SOCKETS_VARIABLE = "CONVSEARCH_SOCKETS"
"""Names the folder for the sockets of a training's queue (`convsearch_verl.queue_sockets`)."""
_WITH_PORT = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*):\d+")


def bare_host(host: str) -> str:
    """The address without the brackets that it has in a URL: `::1` for `[::1]`."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def in_url(host: str) -> str:
    """The address as it stands in a URL: `[::1]` for `::1`."""
    host = bare_host(host)
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; names other than localhost count as open."""
    host = bare_host(host)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def check_exposure(host: str, *, has_key: bool, allowed: bool, key_variable: str) -> None:
    """Raises ConfigError where strangers could reach a server that asks for no key, and for an
    address with a port, or half of its brackets."""
    if _WITH_PORT.fullmatch(host):
        raise ConfigError(f"--host {host}: the address alone; give the port as --port")
    if set("[]") & set(bare_host(host)):
        raise ConfigError(f"--host {host}: no address; write {LOOPBACK}, or [::1] in both brackets")
    if has_key or allowed or is_loopback(host):
        return
    raise ConfigError(
        f"--host {host} can be reached from other machines and there is no API key; set "
        f"{key_variable} or --api-key-file, listen on {LOOPBACK}, or say "
        "--allow-unauthenticated where everybody on the network may ask"
    )


def read_api_key(path: Path | None, variable: str) -> str | None:
    """The key from a file, or from the environment variable, or None.

    Raises MissingFileError, or ConfigError for a key that no HTTP header can carry.
    """
    if path is None:
        key, where = os.environ.get(variable, "").strip(), variable
        if not key:
            return None
    else:
        where = str(path)
        try:
            key = path.read_text(encoding="utf-8-sig", errors="replace").strip()
        except OSError as error:
            raise MissingFileError(f"{path}: the API key cannot be read ({error})") from None
    if not key or not is_header_word(key):
        raise ConfigError(
            f"{where}: an API key is one line of letters, digits and signs without blanks"
        )
    return key


def is_header_word(text: str) -> bool:
    """Whether an HTTP header can carry it as one word."""
    return all("!" <= character <= "~" for character in text)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. host: with or without the brackets of a URL. Raises
    ConfigError."""
    address = bare_host(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named; without
    # it every answer on a kept connection waits 40 ms for the client's delayed acknowledgement
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {in_url(host)}:{port} ({error}); choose another --host or --port"
        ) from None
    return listener
