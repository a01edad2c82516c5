"""By which names a service may be asked that asks for no key.

A web page can make its own name resolve to 127.0.0.1 and then read what answers there (DNS
rebinding). The browser says the name in `Host`, and the page's origin in `Origin`; an address in
numbers cannot be made to mean another machine.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from convsearch.listening import is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_SHOWN_CHARS = 100
_NAME = r"(?:\[(?P<address>[^][\s]+)\]|(?P<name>[\w.-]+))(?::\d*)?"
_FORMS = {
    b"host": re.compile(_NAME, re.ASCII),
    b"origin": re.compile("https?://" + _NAME, re.ASCII | re.IGNORECASE),
}


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """The names that pass: those of this machine's loopback, and these."""

    names: frozenset[str]
    """In lower case, without port and brackets."""
    any_address: bool = False
    """Every address in numbers: of a service that other machines reach."""

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Why a request with these headers is not answered; None where it is. A request without
        Host comes from no browser, and passes."""
        for name, value in headers:
            if (form := _FORMS.get(name)) is None:
                continue
            said = value.decode("latin-1")
            found = form.fullmatch(said)
            if found is None or not self._passes(found["address"] or found["name"]):
                what = name.decode().capitalize()
                shown = said if len(said) <= _SHOWN_CHARS else f"{said[:_SHOWN_CHARS]}..."
                return (
                    f"{what} {shown!r} is not this server, which asks for no key and so answers "
                    "to its own names alone; ask http://127.0.0.1 or http://localhost, start it "
                    "with --allowed-host and this name, or give it an API key (--api-key-file)"
                )
        return None

    def _passes(self, host: str) -> bool:
        host = host.lower().rstrip(".")
        if host in self.names or is_loopback(host):
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return self.any_address or (mapped is not None and mapped.is_loopback)


def hosts_of(bound: str, *, has_key: bool, further: Sequence[str] = ()) -> Hosts | None:
    """Those of a service that listens on the address or name `bound`. None, for every name, where
    a key is asked for: no page has it. further: names that the user adds."""
    if has_key:
        return None
    names = {bound, *further}
    if not (local := is_loopback(bound)):
        names.add(socket.gethostname())
    return Hosts(
        names=frozenset(name.lower().strip("[]").rstrip(".") for name in names if name),
        any_address=not local,
    )


class HostCheck:
    """ASGI middleware: hands on what was sent to a name of this service."""

    def __init__(self, app: App, *, hosts: Hosts | None, refuse: Callable[[str], App]) -> None:
        """hosts: None takes every name. refuse: the answer with this sentence."""
        self._app = app
        self._hosts = hosts
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Looks at every Host and Origin."""
        if scope["type"] == "http" and self._hosts is not None:
            said = self._hosts.refusal(scope["headers"])
            if said is not None:
                await self._refuse(said)(scope, receive, send)
                return
        await self._app(scope, receive, send)
