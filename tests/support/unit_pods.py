"""Units as pods with real containers: the body that a driver sends, a unit image, a build's image,
and SSH to the supervisor by an exec stream."""

from __future__ import annotations

import io
import os
import subprocess
import sysconfig
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vmrunner_localclouds.pods import Execution, Pods, RunningPod

from tests.support.loopback_registry import LoopbackRegistry, archive, programs
from tests.support.sshd import wait_for
from vmrunner.lib import unit_recipe
from vmrunner.session.ssh import keys

SUPERVISOR: Final = f"/{unit_recipe.LIBRARY}/supervisor"
_PROGRAMS: Final = (
    "sh bash echo env find grep gzip head kill mkdir /usr/bin/python3 rm sleep tar test cat ls "
    "/usr/sbin/sshd /usr/lib/openssh/sshd-session /usr/lib/openssh/sshd-auth"
)
_UNUSED: Final = frozenset(
    [
        "test",
        "idlelib",
        "ensurepip",
        "pydoc_data",
        "tkinter",
        "unittest",
        "asyncio",
        "multiprocessing",
        "xml",
        "email",
        "http",
        "distutils",
        "turtledemo",
        "curses",
        "dbm",
        "sqlite3",
        "wsgiref",
        "lib2to3",
        "xmlrpc",
        "venv",
        "logging",
        "concurrent",
        "html",
        "dist-packages",
        "site-packages",
    ]
)
_OURS: Final = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "SYS_CHROOT", "KILL"]
_BUILDS: Final = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "KILL"]


def unit_image(registry: LoopbackRegistry, home: Path, recipe: str = "") -> str:
    """A unit image of this machine's own programs and our files, pushed; its name. To make the real
    one takes a minute: `images/unit_image.py`. `recipe`: it says that it is of this one."""
    modules = list((Path(sysconfig.get_path("stdlib")) / "lib-dynload").glob("_ctypes.*.so"))
    layers = [programs(_PROGRAMS.split(), modules), _python(), _ours(recipe)]
    return registry.push("unit:1", archive(home / "unit.tar", layers, Env=["PATH=/bin:/usr/bin"]))


def _python() -> bytes:
    library = Path(sysconfig.get_path("stdlib"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(
            library,
            arcname=str(library).lstrip("/"),
            filter=lambda m: None if _UNUSED & set(m.name.split("/")) else m,
        )
    return buffer.getvalue()


def _ours(recipe: str) -> bytes:
    files = {**unit_recipe.files(), **unit_recipe.byte_code()}
    files[unit_recipe.HASH] = f"{recipe or unit_recipe.current()}\n".encode()
    files["etc/passwd"] = (
        b"root:x:0:0::/root:/bin/sh\nsshd:x:1:1::/run/sshd:/bin/false\nnobody:x:2:2::/:/bin/false\n"
    )
    files["etc/group"] = b"root:x:0:\nsshd:x:1:\nnogroup:x:2:\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("run/sshd", "vmrunner", "work", "usr/bin", "usr/sbin", "usr/lib/openssh"):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for name, target in _LINKS.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


_LINKS: Final = {
    "usr/bin/python3": "/bin/python3",
    "usr/sbin/sshd": "/bin/sshd",
    "usr/lib/openssh/sshd-session": "/bin/sshd-session",
    "usr/lib/openssh/sshd-auth": "/bin/sshd-auth",
}


def body(unit: str, image: str, *, runtime: str = "runc", memory: str = "512Mi") -> dict[str, Any]:
    """The pod of one build."""
    none = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    box = {"name": "box", "mountPath": "/vmrunner"}
    return {
        "metadata": {"name": "vm-1"},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 600,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "shareProcessNamespace": False,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["192.0.2.1"]},
            "terminationGracePeriodSeconds": 10,
            "hostname": "build",
            "initContainers": [
                {
                    "name": "lay",
                    "image": unit,
                    "command": [SUPERVISOR, "lay"],
                    "securityContext": none,
                    "volumeMounts": [box],
                }
            ],
            "containers": [
                {
                    "name": "vmrunner",
                    "image": unit,
                    "command": [SUPERVISOR, "beside"],
                    "startupProbe": {
                        "exec": {"command": [SUPERVISOR, "ready"]},
                        "periodSeconds": 1,
                        "failureThreshold": 60,
                    },
                    "securityContext": {**none, "capabilities": {"drop": ["ALL"], "add": _OURS}},
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "128Mi"},
                        "limits": {"memory": "256Mi"},
                    },
                    "volumeMounts": [
                        {"name": "identity", "mountPath": "/run/identity", "readOnly": True},
                        {"name": "run", "mountPath": "/run/vmrunner"},
                        box,
                        {"name": "work", "mountPath": "/work"},
                        {"name": "secrets", "mountPath": "/run/build-secrets"},
                    ],
                },
                {
                    "name": "build",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "/vmrunner/driver.sh"],
                    "workingDir": "/work",
                    "securityContext": {
                        **none,
                        "runAsUser": 0,
                        "capabilities": {"drop": ["ALL"], "add": _BUILDS},
                    },
                    "resources": {"limits": {"memory": memory}},
                    "volumeMounts": [
                        {**box, "readOnly": runtime == "runc"},
                        {"name": "work", "mountPath": "/work"},
                        {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True},
                    ],
                },
            ],
            "volumes": [
                {"name": "identity", "secret": {"secretName": "vm-1", "defaultMode": 0o400}},
                {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "96Mi"}},
                {"name": "box", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
                {"name": "secrets", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
                {"name": "work", "emptyDir": {}},
            ],
        },
    }


class UnitPod:
    """One unit that runs."""

    def __init__(self, pods: Pods, unit: str, image: str, runtime: str, **more: Any) -> None:
        ttl, leak = more.pop("ttl", 600), more.pop("leak", False)
        self.host, self.user = keys.generate(), keys.generate()
        identity = {
            "authorized_keys": f"{self.user.public}\n".encode(),
            "host_key": self.host.private.encode(),
            "host_key.pub": f"{self.host.public}\n".encode(),
            "deadline": f"{time.time() + ttl:.0f}\n".encode(),
        }
        self.identity = identity
        document = body(unit, image, runtime=runtime, **more)
        if leak:  # what no driver may ever ask for
            mount = {"name": "identity", "mountPath": "/var/leak", "readOnly": True}
            document["spec"]["containers"][1]["volumeMounts"].append(mount)
        self.pod: RunningPod = pods.start(
            "vm-1",
            document,
            secrets={"vm-1": identity},
            runtime=runtime,
        )

    def await_ready(self) -> None:
        wait_for(lambda: self.container("vmrunner").get("started"))

    def container(self, name: str) -> dict[str, Any]:
        """The status of one container; empty before there is one."""
        found = self.pod.status()["containerStatuses"]
        return next((status for status in found if status["name"] == name), {})

    def call(self, *words: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """Give the supervisor a command: exit code, stdout, stderr."""
        execution = self.exec([SUPERVISOR, words[0], "--epoch", "1", *words[1:]])
        try:
            execution.stdin.write(stdin)
            execution.stdin.close()
            out, err = execution.stdout.read(), execution.stderr.read()
            return execution.wait(), out, err
        finally:
            execution.close()

    def exec(self, words: Sequence[str], container: str = "vmrunner") -> Execution:
        return self.pod.exec(container, words)

    def output(self, script: str, container: str = "vmrunner") -> bytes:
        """Output of a shell's script in a container."""
        execution = self.exec(["/bin/sh", "-c", script], container)
        try:
            return execution.stdout.read() + execution.stderr.read()
        finally:
            execution.close()

    def events(self) -> str:
        return self.output("cat /run/vmrunner/spool/events").decode()


@contextmanager
def unit_pod(
    pods: Pods, unit: str, image: str, runtime: str = "runc", **more: Any
) -> Iterator[UnitPod]:
    made = UnitPod(pods, unit, image, runtime, **more)
    try:
        made.await_ready()
        yield made
    finally:
        for name in ("lay", "vmrunner", "build"):
            print(f"{name}: {made.pod.log(name)[-2000:]!r}")
        print(made.pod.status())
        made.pod.close()


def ssh(unit: UnitPod, home: Path, command: str) -> subprocess.CompletedProcess[bytes]:
    """OpenSSH's own client over an exec stream of the pod, with the strictest of host keys."""
    execution = unit.exec([f"/{unit_recipe.LIBRARY}/sshd"])
    (home / "key").write_text(unit.user.private)
    (home / "key").chmod(0o600)
    (home / "known").write_text(f"unit {unit.host.public}\n")
    down, up = (
        f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (execution.stdout, execution.stdin)
    )
    try:
        return subprocess.run(
            [
                *("ssh", "-F", "none", "-i", str(home / "key"), "-o", "HostKeyAlias=unit"),
                *("-o", f"UserKnownHostsFile={home / 'known'}", "-o", "StrictHostKeyChecking=yes"),
                *("-o", f"ProxyCommand=sh -c 'exec 3<&0; cat <{down} & exec cat <&3 >{up}'"),
                *("root@unit", command),
            ],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    finally:
        execution.close()
