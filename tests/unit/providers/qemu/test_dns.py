"""Whom builds ask for names: never who knows the names of the host's own network."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.errors import ConfigError
from vmrunner.providers import qemu
from vmrunner.providers.qemu import dns, network

#: The last is Azure's own, which knows the names of the host's network, at a public address.
PRIVATE = (
    "127.0.0.53",
    "10.0.0.2",
    "192.168.1.1",
    "169.254.169.253",
    "100.64.0.1",
    "::1",
    "168.63.129.16",
)


def file(tmp_path: Path, *addresses: str) -> Path:
    path = tmp_path / f"resolv.{len(addresses)}"
    lines = ["# one", "search corp.example", *(f"nameserver {address}" for address in addresses)]
    path.write_text("\n".join(lines))
    return path


def test_the_first_of_the_internets_that_the_host_asks(tmp_path: Path) -> None:
    first = file(tmp_path, *PRIVATE)
    second = file(tmp_path, "10.0.0.2", "44.44.44.44", "45.45.45.45")
    chosen = dns.choose("auto", [], [first, tmp_path / "nowhere", second])
    assert chosen == ("44.44.44.44", f"of {second}")


def test_one_that_this_host_is_itself_is_not_asked(tmp_path: Path) -> None:
    chosen = dns.choose("auto", ["44.44.44.0/24"], [file(tmp_path, "44.44.44.44")])
    assert chosen.address == dns.PUBLIC


def test_a_host_with_private_resolvers_uses_a_public_one(tmp_path: Path) -> None:
    chosen = dns.choose("auto", [], [file(tmp_path, *PRIVATE)])
    assert chosen == (dns.PUBLIC, "/etc/resolv.conf names none of the internet")


def test_who_names_one_gets_it(tmp_path: Path) -> None:
    assert dns.choose("10.0.0.2", [], [file(tmp_path, "44.44.44.44")]).address == "10.0.0.2"


@pytest.mark.parametrize(
    "address", ["127.0.0.53", "0.0.0.0", "224.0.0.1", "::1", "dns.example", ""]
)
def test_one_that_no_vm_could_reach_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="dns") as caught:
        qemu.open("local", state_dir=tmp_path, cache_dir=tmp_path, installation="i", dns=address)
    assert address in str(caught.value)
    assert caught.value.hint


def test_the_rules_allow_port_53_of_that_resolver_alone() -> None:
    text = network.rules(resolver="10.0.0.2", host=["5.6.7.8/32"])
    assert [line.strip() for line in text.splitlines() if "dport 53" in line] == [
        "ip daddr 10.0.0.2 meta l4proto { tcp, udp } th dport 53 accept"
    ]
    assert not any("dns" in word for word in network.pasta("pasta", namespace="/proc/1/ns/net"))
