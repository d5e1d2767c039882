"""Is an image what it should be? Every byte is read, then a VM is booted from it, by the same
provider that builds use, and each promise is looked at from inside."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from vmrunner import cloudinit, ids, keys
from vmrunner.errors import ImageError, VmrunnerError
from vmrunner.images.disk import LIBRARY, MANIFEST
from vmrunner.images.tools import Programs, require
from vmrunner.model import (
    Access,
    Address,
    Finding,
    Key,
    Level,
    Network,
    Order,
    Power,
    Ref,
    Role,
    Spec,
)
from vmrunner.providers import Provider, qemu
from vmrunner.providers.qemu import imagestore
from vmrunner.providers.qemu.imagestore import LocalImage
from vmrunner.ssh import Connection, Dialer

_TTL: Final = 1200.0  # seconds after which the VM ends itself
_BOOT: Final = 300.0
_FIX: Final = "vmrunner image build"

#: what `sshd -T` must say
_SSHD: Final = (
    "permitrootlogin without-password",
    "authenticationmethods publickey",
    "passwordauthentication no",
    "kbdinteractiveauthentication no",
    "persourcepenalties no",
    "maxstartups 100:30:200",
    "usedns no",
    "allowtcpforwarding no",
)


def verify(image: LocalImage, *, accel: str = "auto") -> list[Finding]:
    """One finding a check. Raises only when the checks themselves cannot be run."""
    require("qemu-img", "qemu-system-x86_64")
    findings = _files(image)
    if any(f.level is Level.ERROR for f in findings):
        return findings
    try:
        with _vm(image, accel) as (connection, seconds):
            findings.append(_ok("boot", f"SSH with the planted host key after {seconds:.1f} s"))
            manifest = imagestore.manifest_of(image.directory)
            findings += [_look(check, connection, manifest) for check in _CHECKS]
    except VmrunnerError as error:
        findings.append(_bad("boot", str(error)))
    return findings


# --- from outside -------------------------------------------------------------------------------


def _files(image: LocalImage) -> list[Finding]:
    """Checksums of all files, and qcow2's own structure."""
    findings = []
    recorded = imagestore.manifest_of(image.directory)["files"]
    for name in imagestore.FILES:
        digest = digest_of(image.directory / name)
        same = digest == recorded[name].get("sha256")
        findings.append(
            _ok(name, f"sha256 {digest[:16]}") if same else _bad(name, "sha256 differs")
        )
    try:
        Programs().run(["qemu-img", "check", str(image.disk)], what="qemu-img check", timeout=300)
    except ImageError as error:
        findings.append(_bad("qcow2", str(error).splitlines()[-1]))
    else:
        findings.append(_ok("qcow2", "no errors"))
    return findings


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- from inside --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Check:
    """A shell command in the VM, and what its output must be: `judge` returns what is wrong."""

    name: str
    command: str
    judge: Callable[[str, dict[str, Any]], str]
    timeout: float = 60.0


def _look(check: _Check, connection: Connection, manifest: dict[str, Any]) -> Finding:
    command = check.command.replace("CONTAINERS", shlex.join(manifest["containers"]))
    done = connection.run(command, timeout=check.timeout)
    output = done.stdout.decode("utf-8", "replace").strip()
    if done.exit_code:
        return _bad(check.name, done.complaint)
    wrong = check.judge(output, manifest)
    if wrong:
        return _bad(check.name, wrong)
    return _ok(check.name, " ".join(output.split())[:100])


def _lacks(*lines: str) -> Callable[[str, dict[str, Any]], str]:
    """Every one of `lines` must be in the output."""

    def judge(output: str, _: dict[str, Any]) -> str:
        missing = [line for line in lines if line not in output.splitlines()]
        return f"missing: {', '.join(missing)}" if missing else ""

    return judge


def _exactly(expected: str) -> Callable[[str, dict[str, Any]], str]:
    def judge(output: str, _: dict[str, Any]) -> str:
        return "" if output == expected else f"{output!r} instead of {expected!r}"

    return judge


def _manifest(output: str, manifest: dict[str, Any]) -> str:
    return "" if f'"hash": "{manifest["hash"]}"' in output else "the manifest is another image's"


def _supervisor(output: str, manifest: dict[str, Any]) -> str:
    lines = (line.split(maxsplit=1) for line in output.splitlines())
    found = {name: digest for digest, name in lines}
    expected = manifest.get("supervisor") or {"supervisor": "named in no manifest"}
    wrong = [name for name, digest in expected.items() if found.get(name) != digest]
    return f"differs: {', '.join(wrong)}" if wrong else ""


_CHECKS: Final = (
    _Check("manifest", f"cat {MANIFEST}", _manifest),
    _Check(
        "supervisor",
        f"cd {LIBRARY} && test -x supervisor && find . -type f -not -name '*.pyc' -printf '%P\\0' "
        "| xargs -0 sha256sum",
        _supervisor,
    ),
    _Check("sshd", f"sshd -T | grep -xE {shlex.quote('|'.join(_SSHD))}", _lacks(*_SSHD)),
    _Check("host keys", "cd /etc/ssh && echo ssh_host_*_key", _exactly("ssh_host_ed25519_key")),
    _Check(
        "root has no password", "cut -d: -f2 /etc/shadow | grep '^[^*!]' | wc -l", _exactly("0")
    ),
    _Check(
        "ports",
        "ss -Hltn | awk '{print $4}' | grep -v ^127 | sort -u",
        _exactly("0.0.0.0:22\n[::]:22"),
    ),
    _Check("units", "systemctl --failed --no-legend --plain", _exactly("")),
    _Check(
        "timers",
        "systemctl list-timers --no-legend --plain | grep -o '[^ ]*\\.timer' "
        "| grep -v ^vmrunner- || true",
        _exactly(""),
    ),
    _Check("cloud-init", "cloud-init status | head -1; cloud-id", _lacks("nocloud")),
    _Check(
        "leftovers",
        "find /var/lib/apt/lists /var/cache/apt/archives /root -type f -not -name lock "
        "-not -path '/root/.bashrc' -not -path '/root/.profile' -not -path '/root/.ssh/*'",
        _exactly(""),
    ),
    _Check(
        "docker is started on demand",
        "systemctl is-enabled docker.socket docker.service; "
        "systemctl is-active docker.service || true",
        _exactly("enabled\ndisabled\ninactive"),
    ),
    _Check(
        "docker",
        "docker info --format '{{.Driver}} {{.CgroupVersion}}'",
        _exactly("overlay2 2"),
        timeout=180.0,
    ),
    _Check(
        "containers",
        "docker image inspect --format '{{index .RepoTags 0}}' CONTAINERS",
        lambda output, manifest: "" if output else f"none of {manifest['containers']}",
    ),
    _Check("boot time", "systemd-analyze time | head -1", lambda output, _: "" if output else "?"),
)


# --- a VM ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _vm(image: LocalImage, accel: str) -> Iterator[tuple[Connection, float]]:
    """A VM of this image without a network, and the seconds until SSH answered. Gone at the end."""
    cache = image.directory.parent.parent
    user, host = keys.generate(), keys.generate()
    with TemporaryDirectory(prefix="vmrunner-verify-") as state:
        provider = qemu.open(
            "verify", state_dir=Path(state), cache_dir=cache, installation="verify", accel=accel
        )
        now = time.time()
        instance = ids.instance_id()
        order = Order(
            instance=instance,
            build="image-verify",
            installation="verify",
            generation="verify",
            role=Role.IMAGE,
            offer=provider.offers(Spec(image=image.hash, network=Network.NONE))[0],
            deadline=now + _TTL,
            user_data=cloudinit.user_data(
                instance=instance,
                deadline=now + _TTL,
                boot_ttl=_TTL,
                authorized_key=user.public,
                host_private=host.private,
                host_public=host.public,
                platform="local",
            ),
            network=Network.NONE,
        )
        began = time.monotonic()
        ref = provider.create(order)
        try:
            address = _address(provider, Key(ref.scope, instance, ref.id))
            dialer = Dialer(Access(user_private=user.private, host_public=host.public))
            try:
                connection = dialer.connect(address, timeout=_BOOT)
            except VmrunnerError as error:
                console = provider.console(ref).splitlines()[-20:]
                raise ImageError("\n".join([str(error), *console])) from None
            try:
                yield connection, time.monotonic() - began
            finally:
                connection.close()
        finally:
            _bury(provider, ref, Key(ref.scope, instance, ref.id))


def _address(provider: Provider, key: Key) -> Address:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        seen = provider.look([key]).get(key)
        if seen is not None and seen.address is not None:
            return Address(*seen.address)
        time.sleep(0.1)
    raise ImageError("the VM has no address")


def _bury(provider: Provider, ref: Ref, key: Key) -> None:
    """Delete, and wait until it is seen dead: its state directory goes next."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        provider.delete([ref], force=True)
        seen = provider.look([key]).get(key)
        if seen is None or seen.power is Power.DEAD:
            return
        time.sleep(0.2)
    raise ImageError(f"the VM {key.instance} does not end")


def _ok(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.OK, message=message)


def _bad(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.ERROR, message=message, fix=_FIX)
