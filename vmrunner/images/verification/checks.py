"""Checks of an image against its promises.

Every byte is read, then a VM is booted from it, by the same provider that builds use, and each
promise is looked at from inside.
"""

from __future__ import annotations

import gzip
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final

from vmrunner.errors import ImageError, VmrunnerError
from vmrunner.images import time_limits
from vmrunner.images.local.disk import LIBRARY, MANIFEST, SBOM
from vmrunner.images.local.programs import ChildPrograms, require
from vmrunner.images.verification import trial_vm
from vmrunner.lib import local_images
from vmrunner.lib.cloudinit import user_data
from vmrunner.lib.file_bytes import digest_of
from vmrunner.lib.local_images import LocalImage
from vmrunner.model import Finding, Level
from vmrunner.providers import registry
from vmrunner.session.ssh import keys
from vmrunner.session.ssh.client import Connection

_FIX: Final = "vmrunner image build"
_SKEW: Final = 5.0  # seconds that the VM's clock may be off

#: What a VM that lives for one build does not wait for.
_UNWANTED: Final = "(apt-daily|motd|snapd|unattended|ubuntu-|multipath|ModemManager|fstrim).*"

#: what `sshd -T` must say
_SSHD: Final = (
    "permitrootlogin without-password",
    "authenticationmethods publickey",
    "pubkeyauthentication yes",
    "passwordauthentication no",
    "permitemptypasswords no",
    "kbdinteractiveauthentication no",
    "persourcepenalties no",
    "maxstartups 100:30:200",
    "maxsessions 64",
    "usedns no",
    "allowtcpforwarding local",
    "allowagentforwarding no",
    "x11forwarding no",
)


def verify(image: LocalImage) -> list[Finding]:
    """Verify an image and return one finding a check. Raises only when the checks themselves cannot
    be run."""
    require("qemu-img", "qemu-system-x86_64")
    findings = _files(image)
    if any(f.level is Level.ERROR for f in findings):
        return findings
    try:
        with trial_vm.vm(image) as (connection, seconds):
            findings.append(_ok("boot", f"SSH with the planted host key after {seconds:.1f} s"))
            manifest = local_images.manifest_of(image.directory)
            manifest |= _sbom_of(image)
            findings += [_look(check, connection, manifest, seconds) for check in CHECKS]
            findings.append(_user_data(connection, seconds))
    except VmrunnerError as error:
        findings.append(_bad("boot", str(error)))
    return findings


# --- from outside -------------------------------------------------------------------------------


def _files(image: LocalImage) -> list[Finding]:
    """Checksums of all files, and qcow2's own structure."""
    findings = []
    recorded = local_images.manifest_of(image.directory)["files"]
    for name in local_images.FILES:
        digest = digest_of(image.directory / name)
        same = digest == recorded[name].get("sha256")
        findings.append(
            _ok(name, f"sha256 {digest[:16]}") if same else _bad(name, "sha256 differs")
        )
    try:
        ChildPrograms().run(
            ["qemu-img", "check", str(image.disk)], what="qemu-img check", timeout=300
        )
    except ImageError as error:
        findings.append(_bad("qcow2", str(error).splitlines()[-1]))
    else:
        findings.append(_ok("qcow2", "no errors"))
    return findings


def _sbom_of(image: LocalImage) -> dict[str, Any]:
    """The SBOM that lies beside the image: its digest, names and versions."""
    file = image.directory / local_images.SBOM
    if not file.exists():
        return {"sbom": "", "installed": set()}
    components = json.loads(file.read_text())["components"]
    installed = {(component["name"], component["version"]) for component in components}
    return {"sbom": digest_of(file), "installed": installed}


# --- from inside --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageCheck:
    """A shell command in the VM, and what its output must be: `judge` returns what is wrong,
    `tell` what was seen when nothing is."""

    name: str
    command: str
    judge: Callable[[str, dict[str, Any]], str]
    tell: Callable[[str], str] = lambda output: " ".join(output.split())[:100] or "none"
    timeout: float = 60.0  # on a quiet machine


def _look(
    check: ImageCheck, connection: Connection, manifest: dict[str, Any], boot: float
) -> Finding:
    """`boot`: seconds that the VM took to boot."""
    command = check.command.replace("CONTAINERS", shlex.join(manifest["containers"]))
    done = connection.run(command, timeout=time_limits.patience(check.timeout, boot))
    output = done.stdout.decode("utf-8", "replace").strip()
    if done.exit_code:
        return _bad(check.name, done.complaint)
    wrong = check.judge(output, manifest)
    if wrong:
        return _bad(check.name, wrong)
    return _ok(check.name, check.tell(output))


def _lacks(*lines: str) -> Callable[[str, dict[str, Any]], str]:
    """Return a check that every one of `lines` is in the output."""

    def judge(output: str, _: dict[str, Any]) -> str:
        missing = [line for line in lines if line not in output.splitlines()]
        return f"missing: {', '.join(missing)}" if missing else ""

    return judge


def _exactly(expected: str) -> Callable[[str, dict[str, Any]], str]:
    def judge(output: str, _: dict[str, Any]) -> str:
        return "" if output == expected else f"{output!r} instead of {expected!r}"

    return judge


def _manifest(output: str, manifest: dict[str, Any]) -> str:
    same = json.loads(output)["hash"] == manifest["hash"]
    return "" if same else "the manifest is another image's"


def _made(output: str) -> str:
    inside = json.loads(output)
    day = datetime.fromtimestamp(inside["created"], UTC).date()
    return f"recipe {inside['hash']}, of {day}"


def _supervisor(output: str, manifest: dict[str, Any]) -> str:
    lines = (line.split(maxsplit=1) for line in output.splitlines())
    found = {name: digest for digest, name in lines}
    expected = manifest.get("supervisor") or {"supervisor": "named in no manifest"}
    wrong = [name for name, digest in expected.items() if found.get(name) != digest]
    return f"differs: {', '.join(wrong)}" if wrong else ""


def _sbom(output: str, manifest: dict[str, Any]) -> str:
    """Check that the SBOM lists what dpkg knows in the VM."""
    packages = {
        (name, version) for name, _, version in (x.partition(" ") for x in output.split("\n"))
    }
    differs = sorted(packages ^ manifest["installed"])
    return f"{len(differs)} packages differ, such as {differs[0][0]}" if differs else ""


def _same_sbom(output: str, manifest: dict[str, Any]) -> str:
    same = output.split()[0] == manifest["sbom"]
    return "" if same else "not the one that lies beside the image"


def _settings(output: str) -> dict[str, Any]:
    """Settings of `docker info` that a recipe or every image decides."""
    info = json.loads(output)
    pools, mirrors = info["DefaultAddressPools"] or (), info["RegistryConfig"]["Mirrors"] or ()
    return {
        "storage": info["Driver"],
        "cgroup": info["CgroupVersion"],
        "log": info["LoggingDriver"],
        "seccomp": any("seccomp" in option for option in info["SecurityOptions"]),
        "userns": any("userns" in option for option in info["SecurityOptions"]),
        "address_pool": " ".join(pool["Base"] for pool in pools),
        "registry_mirror": " ".join(url.rstrip("/") for url in mirrors),
        "runsc": "runsc" in info["Runtimes"],
    }


def _docker(output: str, manifest: dict[str, Any]) -> str:
    """Check that Docker is set up as the recipe has it, and has what every image has."""
    found, wanted = _settings(output), manifest.get("docker", {})
    expected = {
        "storage": "overlay2",
        "cgroup": "2",
        "log": "local",
        "seccomp": True,
        "userns": wanted.get("userns", False),
        "address_pool": wanted.get("address_pool", ""),
        "registry_mirror": (wanted.get("registry_mirror") or "").rstrip("/"),
        "runsc": any(name == "runsc" for name, _ in manifest["installed"]),
    }
    wrong = [f"{key} is {found[key]!r}" for key in expected if found[key] != expected[key]]
    return ", ".join(wrong)


def _off(clock: str) -> float:
    return float(clock) - time.time()


def _clock(output: str, _: dict[str, Any]) -> str:
    return f"{_off(output):+.1f} s off" if abs(_off(output)) > _SKEW else ""


#: `cloud-init schema` for each file.
_SCHEMA: Final = """
import sys
from cloudinit.cmd.main import main
for path in sys.argv[1:]:
    try:
        code = main(["cloud-init", "schema", "--config-file", path])
    except SystemExit as error:
        code = error.code
    if code:
        sys.exit(f"{path}: its schema refuses it")
"""


def _user_data(connection: Connection, boot: float) -> Finding:
    """Check the user-data of every platform, ours and stock images', by cloud-init's own schema."""
    user, host = keys.generate(), keys.generate()
    platforms = sorted({driver.platform for driver in registry.drivers().values()})
    documents = []
    for platform, stock in product(platforms, (False, True)):
        document = user_data.user_data(
            instance="vm-verify",
            deadline=time.time() + trial_vm.TTL,
            boot_ttl=trial_vm.TTL,
            authorized_key=user.public,
            host_private=host.private,
            host_public=host.public,
            platform=platform,
            stock=stock,
        )
        text = gzip.decompress(document) if stock else document
        documents.append(f"/run/user-data.{platform}{'.stock' if stock else ''}")
        connection.run(
            f"cat >{documents[-1]}", stdin=[text], timeout=time_limits.patience(30.0, boot)
        )
    # In one process: under emulation it takes seconds to start.
    command = shlex.join(["python3", "-c", _SCHEMA, *documents])
    done = connection.run(command, timeout=time_limits.patience(120.0, boot))
    if done.exit_code:
        return _bad("user-data", done.complaint)
    return _ok("user-data", f"cloud-init takes it: {', '.join(platforms)}; of stock images too")


CHECKS: Final = (
    ImageCheck("manifest", f"cat {MANIFEST}", _manifest, _made),
    ImageCheck(
        "supervisor",
        f"cd {LIBRARY} && test -x supervisor && find . -type f -not -name '*.pyc' -printf '%P\\0' "
        "| xargs -0 sha256sum",
        _supervisor,
        lambda output: f"{len(output.splitlines())} files, byte by byte",
    ),
    ImageCheck(
        "sshd",
        # One that knows no penalties, before 9.8, has none.
        "{ sshd -T | grep ^persourcepenalties || echo persourcepenalties no; sshd -T; } "
        f"| grep -xE {shlex.quote('|'.join(_SSHD))}",
        _lacks(*_SSHD),
    ),
    ImageCheck("host keys", "cd /etc/ssh && echo ssh_host_*_key", _exactly("ssh_host_ed25519_key")),
    ImageCheck(
        "no user has a password",
        "awk -F: '$2 !~ /^[*!]/ { print $1 }' /etc/shadow",
        _exactly(""),
    ),
    ImageCheck(
        "ports",
        "ss -Hltn | awk '{print $4}' | grep -v ^127 | sort -u",
        _exactly("0.0.0.0:22\n[::]:22"),
    ),
    ImageCheck("units", "systemctl --failed --no-legend --plain", _exactly("")),
    ImageCheck(
        "timers",
        "systemctl list-timers --no-legend --plain | grep -o '[^ ]*\\.timer' "
        "| grep -v ^vmrunner- || true",
        _exactly(""),
    ),
    ImageCheck(
        "cloud-init",
        # What waits writes a dot for each while before its answer.
        "cloud-init status --wait | tr -d '.\\n'; echo; cat /run/cloud-init/cloud-id; "
        "cloud-init schema --system >&2",
        _exactly("status: done\nnocloud"),
    ),
    ImageCheck(
        "leftovers",
        "find /var/lib/apt/lists /var/cache/apt/archives /root /home /tmp /var/tmp -type f "
        "-not -name lock -not -path '/root/.bashrc' -not -path '/root/.profile' "
        "-not -path '/root/.ssh/*'; ls /var/lib/cloud/instances | sed 1d",
        _exactly(""),
    ),
    ImageCheck(
        "secrets",
        "grep -rlE 'PRIVATE KEY-----|aws_secret_access_key' /etc /root /home /opt /srv /usr/local "
        "| grep -v '^/etc/ssh/ssh_host_ed25519_key$' || true",
        _exactly(""),
    ),
    ImageCheck(
        "sbom",
        "dpkg-query -W -f '${Package} ${Version}\n'",
        _sbom,
        lambda output: f"{len(output.splitlines())} packages, as dpkg has them",
    ),
    ImageCheck(
        "sbom in the image",
        f"sha256sum <{SBOM}",
        _same_sbom,
        lambda output: f"sha256 {output[:16]}, as beside the image",
    ),
    ImageCheck("clock", "date +%s.%N", _clock, lambda output: f"{_off(output):+.1f} s off"),
    ImageCheck(
        "trimmed",
        "systemctl list-unit-files --no-legend --plain --state=enabled,enabled-runtime "
        f"| awk '{{print $1}}' | grep -xE '{_UNWANTED}' || true",
        _exactly(""),
    ),
    ImageCheck(
        "kvm",
        "systemctl is-system-running --wait >/dev/null; "
        "if grep -Eqw 'svm|vmx' /proc/cpuinfo; then ls /dev/kvm; else echo none; fi",
        lambda output, _: "" if output in ("/dev/kvm", "none") else f"{output!r}",
    ),
    ImageCheck(
        "docker is started on demand",
        "systemctl is-enabled docker.socket docker.service; "
        "systemctl is-active docker.service || true",
        _exactly("enabled\ndisabled\ninactive"),
    ),
    ImageCheck(
        "docker",
        "docker info --format '{{json .}}'",
        _docker,
        lambda output: ", ".join(f"{k} {v}" for k, v in _settings(output).items() if v != ""),
        timeout=180.0,
    ),
    ImageCheck(
        "containers",
        "docker image inspect --format '{{index .RepoTags 0}}' CONTAINERS",
        lambda output, manifest: _lacks(*manifest["containers"])(output, manifest),
    ),
    ImageCheck(
        "boot time", "systemd-analyze time | head -1", lambda output, _: "" if output else "?"
    ),
)


def _ok(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.OK, message=message)


def _bad(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.ERROR, message=message, fix=_FIX)
