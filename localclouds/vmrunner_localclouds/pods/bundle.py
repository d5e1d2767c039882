"""Configuration of a container for a runtime, `config.json`, made of a pod's document.

Read are: image, command, args, env (values, secretKeyRef), workingDir, securityContext (user,
group, capabilities, privilege escalation, read-only root), memory limit, volumeMounts. All else of
a container's document is not the node's business, or is refused: `UNKNOWN`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from vmrunner_localclouds.pods.images import Image
from vmrunner_localclouds.pods.memory import size

Document = Mapping[str, Any]
Secrets = Mapping[str, Mapping[str, bytes]]

#: What no pod here may ask for: nothing would come of it, and nobody would notice.
UNKNOWN: Final = ("lifecycle", "envFrom", "volumeDevices", "livenessProbe", "readinessProbe", "tty")
#: As container runtimes give them to who asks for nothing.
_CAPABILITIES: Final = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)


class Refused(Exception):
    """The container cannot be made. `reason` is Kubernetes'."""

    reason = "CreateContainerConfigError"


def config(
    container: Document,
    image: Image,
    *,
    root: str,
    mounts: Sequence[Document],
    secrets: Secrets,
    hostname: str,
) -> dict[str, Any]:
    """The document, without what is a runtime's own. Raises Refused."""
    if unknown := [key for key in UNKNOWN if key in container]:
        raise Refused(f"{container['name']}: {', '.join(unknown)} is not to be had here")
    security = container.get("securityContext", {})
    if security.get("privileged"):
        raise Refused(f"{container['name']}: no container is privileged here")
    document: dict[str, Any] = json.loads(_plain())
    document["hostname"] = hostname
    document["root"] = {"path": root, "readonly": bool(security.get("readOnlyRootFilesystem"))}
    capabilities = [f"CAP_{name}" for name in _capabilities(security)]
    document["process"] = {
        "terminal": False,
        "args": _words(container, image),
        "env": _env(container, image, secrets),
        "cwd": container.get("workingDir") or image.directory,
        "user": _user(security, image),
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        "noNewPrivileges": security.get("allowPrivilegeEscalation") is False,
    }
    document["mounts"] = [m for m in document["mounts"] if m["destination"] != "/sys/fs/cgroup"]
    document["mounts"] += mounts
    document["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    if limit := memory_limit(container):
        document["linux"]["resources"]["memory"] = {"limit": limit, "swap": limit}
    return document


def memory_limit(container: Document) -> int:
    """Bytes; 0: it has none."""
    return size(container.get("resources", {}).get("limits", {}).get("memory", 0))


@cache
def _plain() -> str:
    """The runtime's own default: its mounts, namespaces, and what it hides of /proc."""
    with TemporaryDirectory() as directory:
        subprocess.run(["runc", "spec"], cwd=directory, check=True)
        return (Path(directory) / "config.json").read_text()


def _words(container: Document, image: Image) -> list[str]:
    command, args = container.get("command"), container.get("args")
    if command:
        words = [*command, *(args or ())]
    else:
        words = [*image.entrypoint, *(image.command if args is None else args)]
    if not words:
        raise Refused(f"{container['name']}: no command is specified")
    return words


def _env(container: Document, image: Image, secrets: Secrets) -> list[str]:
    env = dict(entry.partition("=")[::2] for entry in image.env)
    for entry in container.get("env", ()):
        if (source := entry.get("valueFrom")) is None:
            env[entry["name"]] = entry.get("value", "")
            continue
        key = source.get("secretKeyRef")
        if key is None:
            raise Refused(f"{entry['name']}: valueFrom is known of secretKeyRef alone")
        try:
            env[entry["name"]] = secrets[key["name"]][key["key"]].decode()
        except KeyError as error:
            raise Refused(f"secret {key['name']!r} has no {error}") from error
    return [f"{name}={value}" for name, value in env.items()]


def _user(security: Document, image: Image) -> dict[str, int]:
    user, _, group = image.user.partition(":")
    uid = security.get("runAsUser", _number(user, image.root / "etc/passwd"))
    gid = security.get("runAsGroup", _number(group, image.root / "etc/group"))
    return {"uid": uid, "gid": gid}


def _number(name: str, file: Path) -> int:
    if not name or name.isdecimal():
        return int(name or 0)
    for line in file.read_text().splitlines() if file.exists() else ():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2])
    raise Refused(f"the image's user {name!r} is not in its {file.name}")


def _capabilities(security: Document) -> list[str]:
    capabilities = security.get("capabilities", {})
    dropped = set(capabilities.get("drop", ()))
    kept = [] if "ALL" in dropped else [c for c in _CAPABILITIES if c not in dropped]
    return sorted({*kept, *capabilities.get("add", ())})
