"""What `image verify` looks at: each check takes what a sound image says, and refuses another."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from vmrunner.images.verification import checks
from vmrunner.images.verification.checks import CHECKS
from vmrunner.model import Level
from vmrunner.session.ssh.client import Completed

DIGEST = "5" * 64
DOCKER = {
    "Driver": "overlay2",
    "CgroupVersion": "2",
    "LoggingDriver": "local",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
    "DefaultAddressPools": [{"Base": "172.18.0.0/16", "Size": 24}],
    "Runtimes": {"runc": {}},
    "RegistryConfig": {"Mirrors": ["https://mirror.example/"]},
}
MANIFEST: dict[str, Any] = {
    "hash": "abc",
    "supervisor": {"supervisor": DIGEST},
    "containers": ["debian:trixie", "python:3"],
    "sbom": DIGEST,
    "installed": {("bash", "5.2-1"), ("git", "1:2.47")},
    "docker": {
        "registry_mirror": "https://mirror.example",
        "address_pool": "172.18.0.0/16",
        "userns": False,
    },
}
SSHD = next(check.command for check in CHECKS if check.name == "sshd")
SSHD_LINES = SSHD.partition("'")[2].rstrip("'").replace("|", "\n")


def docker(**other: Any) -> str:
    return json.dumps(DOCKER | other)


#: check → what a sound image says, and what others would. NOW: the seconds of then.
SEEN: dict[str, tuple[str, list[str]]] = {
    "manifest": ('{"hash": "abc", "created": 1}', ['{"hash": "abd", "created": 1}']),
    "supervisor": (f"{DIGEST}  supervisor", [f"{'6' * 64}  supervisor", ""]),
    "sshd": (
        SSHD_LINES,
        [
            SSHD_LINES.replace("passwordauthentication no", "passwordauthentication yes"),
            SSHD_LINES.replace("maxstartups 100:30:200", "maxstartups 10:30:100"),
        ],
    ),
    "host keys": ("ssh_host_ed25519_key", ["ssh_host_ed25519_key ssh_host_rsa_key"]),
    "no user has a password": ("", ["root"]),
    "ports": ("0.0.0.0:22\n[::]:22", ["0.0.0.0:2375\n0.0.0.0:22\n[::]:22"]),
    "units": ("", ["ssh.service loaded failed failed x"]),
    "timers": ("", ["apt-daily.timer"]),
    "cloud-init": ("status: done\nnocloud", ["status: error\nnocloud", "status: done\nnone"]),
    "leftovers": ("", ["/root/.bash_history"]),
    "secrets": ("", ["/root/id_rsa"]),
    "sbom": ("bash 5.2-1\ngit 1:2.47", ["bash 5.2-1", "bash 5.2-2\ngit 1:2.47", ""]),
    "sbom in the image": (f"{DIGEST}  -", [f"{'6' * 64}  -"]),
    "clock": ("NOW", ["1NOW", "0"]),
    "trimmed": ("", ["apt-daily.timer"]),
    "kvm": ("/dev/kvm", ["", "/dev/kvm\nnone"]),
    "docker is started on demand": ("enabled\ndisabled\ninactive", ["enabled\nenabled\nactive"]),
    "docker": (
        docker(),
        [
            docker(Driver="vfs"),
            docker(LoggingDriver="json-file"),
            docker(SecurityOptions=["name=cgroupns"]),
            docker(SecurityOptions=[*DOCKER["SecurityOptions"], "name=userns"]),
            docker(DefaultAddressPools=None),
            docker(Runtimes={"runc": {}, "runsc": {}}),
            docker(RegistryConfig={"Mirrors": []}),
        ],
    ),
    "containers": ("debian:trixie\npython:3", ["debian:trixie", ""]),
    "boot time": ("Startup finished in 1s", [""]),
}


def test_every_check_has_an_example() -> None:
    assert SEEN.keys() == {check.name for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_each_takes_what_is_sound_and_refuses_what_is_not(check: Any) -> None:
    sound, others = SEEN[check.name]
    sound = sound.replace("NOW", str(time.time()))
    assert check.judge(sound, MANIFEST) == ""
    assert check.tell(sound)
    assert others
    for other in others:
        assert check.judge(other.replace("NOW", str(time.time())), MANIFEST), other


@pytest.mark.parametrize(("boot", "patience"), [(4.0, 60.0), (15.0, 60.0), (150.0, 600.0)])
def test_a_slow_boot_gives_its_checks_more_time(boot: float, patience: float) -> None:
    """At load 9 cloud-init took longer than a minute, and a sound image was called bad."""
    given: list[float] = []

    class Slow:
        def run(self, _: str, *, timeout: float, **__: Any) -> Completed:
            given.append(timeout)
            return Completed(0, b"status: done\nnocloud", b"")

    check = next(check for check in CHECKS if check.name == "cloud-init")
    assert checks._look(check, Slow(), MANIFEST, boot).level is Level.OK  # type: ignore[arg-type]
    checks._user_data(Slow(), boot)  # type: ignore[arg-type]
    assert given == [patience, *[patience / 2] * 8, 2 * patience]
