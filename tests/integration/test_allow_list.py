"""An allow-list holds against whoever has taken QEMU's place: names, addresses, floods."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import allow_world
from tests.support.named_servers import certificate
from vmrunner.providers.qemu import network
from vmrunner.providers.qemu.allow import proxy

DENIED = proxy.DENIED.hex()
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe reached, in namespaces of its own without any way out."""
    pem = certificate(tmp_path_factory.mktemp("allow") / "cert.pem")
    words = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    words += [sys.executable, "-m", allow_world.__name__, str(pem)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, timeout=120, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def found(world: dict[str, Any]) -> dict[str, str]:
    shown: dict[str, str] = world["found"]
    return shown


def test_allowed_names_are_reached_at_their_own_address(found: dict[str, str]) -> None:
    expected = f"{allow_world.TOKEN} {allow_world.INTERNET}"
    assert found["tls"] == f"{expected} good.example.org"
    assert found["tls below a wildcard"] == f"{expected} a.b.example.net"
    assert f"{expected} host: deb.example.org 1" in found["http"]
    assert found["hello in pieces"].startswith("160303")
    assert found["hello in records"].startswith("160303")


def test_what_is_not_on_the_list_is_refused(found: dict[str, str]) -> None:
    refused = ("tls at another port", "forged name", "private address", "host", "meta", "wire")
    reached = {name: found[name] for name in refused if allow_world.TOKEN in found[name]}
    assert reached == {}
    assert "ACCESS_DENIED" in found["forged name"].upper().replace(" ", "_")
    assert found["encrypted hello"] == DENIED
    assert DENIED in found["no tls"].encode("latin1", "replace").hex() or not found["no tls"]
    assert found["name of another"] == found["tunnel"] == found["name without the dot"] == "code 3"
    assert "403 Forbidden" in found["http for another"]
    assert "evil.example.com:80 is not on the allow-list" in found["http for another"]
    assert found["http for another after"].count("host:") == 1


def test_an_allowed_name_leads_to_no_private_address(found: dict[str, str]) -> None:
    """Where it has another, that is used."""
    for name in ("private address", "host", "meta", "wire"):
        assert allow_world.TOKEN not in found[name]
    assert found["rebound"] == f"{allow_world.TOKEN} {allow_world.INTERNET} rebound.example.org"


def test_no_other_packet_goes_anywhere(world: dict[str, Any], found: dict[str, str]) -> None:
    """TCP, UDP (QUIC, DNS elsewhere) and ICMP to addresses, whatever they are."""
    kinds = ("tcp ", "udp ", "asked ", "ping ")
    tries = {name: output for name, output in found.items() if name.startswith(kinds)}
    assert len(tries) > 60
    allowed = {f"tcp {network.PROXY} 80", f"tcp {network.PROXY} 443", f"asked {network.PROXY}"}
    through = {
        name
        for name, output in tries.items()
        if output.startswith(("connected", "answered")) or output[:1].isdigit()
    }
    assert through <= allowed
    assert found["good name, other address"].startswith("OSError")
    assert world["interfaces"] == ["lo"]


def test_only_names_that_are_connected_to_are_asked_for(world: dict[str, Any]) -> None:
    resolved = set(world["asked"])
    assert "good.example.org" in resolved
    assert {
        name for name in resolved if not name.endswith((".example.org", ".example.net"))
    } == set()
    assert "evilexample.net" not in resolved


def test_a_flood_is_held_within_bounds(world: dict[str, Any], found: dict[str, str]) -> None:
    assert found["flood"] == "600 tried"
    assert proxy.CONNECTIONS <= world["most"] <= proxy.CONNECTIONS + 20
    kib = int(world["proxy"]["VmHWM"].split()[0])
    assert kib < 128 * 1024
    assert allow_world.TOKEN in found["after the flood"]


def test_the_proxy_has_neither_files_nor_privileges(world: dict[str, Any]) -> None:
    held = dict(world["proxy"])
    del held["VmHWM"]
    assert held == {
        "CapEff": "0000000000000000",
        "CapPrm": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "root": "",
    }


def test_what_becomes_the_hosts_own_is_denied_too(found: dict[str, str]) -> None:
    assert allow_world.TOKEN not in found["denied later"]
