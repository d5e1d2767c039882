"""An allow-list holds against root in a real guest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.allow_world import ALLOW
from tests.vm import allow_wall, stand_in
from tests.vm.qemu_fixture import cache_dir
from vmrunner.providers.qemu import network
from vmrunner.providers.qemu.allow import proxy

pytestmark = pytest.mark.vm

REPOSITORY = Path(__file__).resolve().parents[2]


def test_root_in_the_guest_reaches_the_named_hosts_alone(tmp_path: Path) -> None:
    root = os.geteuid() == 0
    words = ["unshare", "--net", "--mount", *([] if root else ["--user", "--map-root-user"])]
    words += [sys.executable, "-m", allow_wall.__name__, str(cache_dir()), str(tmp_path)]
    done = subprocess.run(
        words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=420, check=True
    )
    answer = json.loads(done.stdout)
    token, found = answer["token"], answer["found"]
    expected = f"{token} {stand_in.INTERNET}"

    assert found["tls"] == f"{expected} good.example.org"
    assert found["tls below a wildcard"] == f"{expected} a.b.example.net"
    assert f"{expected} host: deb.example.org 1" in found["http"]
    assert found["hello in pieces"].startswith("160303")
    assert found["after the flood"] == f"{expected} good.example.org"

    assert found["encrypted hello"] == proxy.DENIED.hex()
    assert "403 Forbidden" in found["http for another"]
    assert found["name of another"] == found["tunnel"] == found["name without the dot"] == "code 3"
    reached = {name for name, output in found.items() if token in output}
    assert reached == {
        "tls", "tls below a wildcard", "http", "http for another after", "after the flood",
    }  # fmt: skip

    # QEMU itself answers a ping of its own two addresses.
    tries = {
        name: output
        for name, output in found.items()
        if name.startswith(("udp ", "asked ", "ping "))
    }
    answered = {
        name for name, output in tries.items() if output[:1].isdigit() or "answered" in output
    }
    assert answered == {
        *("asked 10.0.2.3", "ping 10.0.2.2", "ping 10.0.2.3"),
        f"asked {network.PROXY}",
    }
    assert len(tries) > 50
    assert 443 in ALLOW.ports
