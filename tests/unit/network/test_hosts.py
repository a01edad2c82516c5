"""Names by which a service without a key may be asked."""

import socket

import pytest

from convsearch.network.hosts import Hosts, hosts_of


def passes(hosts: Hosts | None, **headers: str) -> bool:
    assert hosts is not None
    return hosts.refusal([(k.encode(), v.encode()) for k, v in headers.items()]) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:8000", "127.3.2.1:80", "localhost", "LocalHost:8000", "localhost.",
        "[::1]", "[::1]:8000", "[::ffff:127.0.0.1]:80",
    ],
)  # fmt: skip
def test_this_machine_passes(host: str) -> None:
    hosts = hosts_of("127.0.0.1", has_key=False)
    assert passes(hosts, host=host)
    assert passes(hosts, host=host, origin=f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example", "attacker.example:8000", "10.0.0.5", "127.0.0.1.attacker.example",
        "localhost.attacker.example", "localhost@attacker.example", "attacker.example@localhost",
        "", ":8000", "[::1", "127.0.0.1, attacker.example", "127.0.0.1/.attacker.example\\",
        "xn--lcalhost-54a", "0.0.0.0", "[fe80::1]", "localhost:80:attacker.example", "127.0.0.1 x",
    ],
)  # fmt: skip
def test_others_do_not(host: str) -> None:
    hosts = hosts_of("127.0.0.1", has_key=False)
    assert not passes(hosts, host=host)


@pytest.mark.parametrize("origin", ["http://attacker.example", "null", "", "https://10.0.0.5:1"])
def test_a_page_of_another_origin_does_not(origin: str) -> None:
    assert not passes(hosts_of("127.0.0.1", has_key=False), host="localhost", origin=origin)


def test_every_host_of_a_request_is_looked_at() -> None:
    hosts = hosts_of("127.0.0.1", has_key=False)
    assert hosts is not None
    sent = [(b"host", b"127.0.0.1"), (b"host", b"attacker.example")]
    said = hosts.refusal(sent)
    assert said is not None
    assert "Host 'attacker.example'" in said
    assert "--allowed-host" in said
    assert "--api-key-file" in said
    assert hosts.refusal([(b"accept", b"*/*")]) is None, "no browser leaves Host out"
    assert len(hosts.refusal([(b"host", b"a" * 10_000)]) or "") < 500


def test_what_other_machines_reach_has_addresses_and_its_own_names() -> None:
    hosts = hosts_of("0.0.0.0", has_key=False, further=["Retriever.Example."])
    for host in ("10.0.0.5:8000", "[fe80::1]:8000", "localhost", socket.gethostname()):
        assert passes(hosts, host=host)
    assert passes(hosts, host="retriever.example:8000")
    assert not passes(hosts, host="attacker.example")
    assert passes(hosts_of("::1", has_key=False, further=["[fe80::2]"]), host="[fe80::2]:1")


def test_with_a_key_any_name_will_do() -> None:
    assert hosts_of("0.0.0.0", has_key=True) is None
