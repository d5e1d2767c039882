"""Checks of a host that is to run VMs, each with its fix; and how much its disk and memory hold."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmrunner.errors import ProviderError
from vmrunner.lib import local_images
from vmrunner.model import Finding, Level
from vmrunner.providers.qemu import accel, cgroup, dns, launch_plan, network, processes, state_dir
from vmrunner.providers.qemu.command_line import MiB, QemuFd
from vmrunner.providers.qemu.options import QemuOptions
from vmrunner.providers.qemu.state_dir import StateDir


def memory(field: str) -> int:
    """A line of /proc/meminfo in bytes; 0 when it has none."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    return 0


def room(state: StateDir) -> int:
    """Bytes that one VM's overlay could come to take here if there were no other VM."""
    place = next(path for path in (state.path, *state.path.parents) if path.exists())
    taken = 0
    for instance_dir in state.instance_dirs():
        with contextlib.suppress(OSError):
            taken += (instance_dir.path / state_dir.OVERLAY).stat().st_blocks * 512
    return shutil.disk_usage(place).free + taken


def to_come(directory: Path, made: Mapping[str, Any]) -> int:
    """Bytes that a VM's overlay may still take, and the memory of one that becomes a template."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        most = {
            QemuFd.OVERLAY: launch_plan.growth(int(made.get("disk", 0))),
            QemuFd.RAM: int(made.get("memory", 0)),
        }
        files = {QemuFd.OVERLAY: directory / state_dir.OVERLAY, **dict(made.get("files", []))}
        for number in files.keys() & most.keys():
            total += max(0, most[number] - Path(files[number]).stat().st_blocks * 512)
    return total


def untouched(state: StateDir, mark: str) -> int:
    """Bytes of memory that the VMs here were given and have not used yet: all of it, at first."""
    used: dict[str, int] = {}
    for owner, name in processes.marked(mark):
        used[name] = max(used.get(name, 0), processes.resident(owner.pid))
    return sum(
        max(
            0,
            int((instance_dir.read(state_dir.PLAN) or {}).get("memory", 0))
            - used.get(instance_dir.path.name, 0),
        )
        for instance_dir in state.instance_dirs()
    )


def check(options: QemuOptions, state: StateDir) -> list[Finding]:
    """The right to delete first, then what a launch needs."""
    return [
        _state(state),
        *(_program(name) for name in (launch_plan.emulator(), "qemu-img", "pasta", "nft")),
        _namespaces(),
        _group(),
        _resolver(options),
        _allow_list(),
        _tun(),
        *_image(options),
        _disk(options, state),
    ]


def _finding(check: str, level: Level, message: str, fix: str = "") -> Finding:
    return Finding(check=check, level=level, message=message, fix=fix)


def _state(state: StateDir) -> Finding:
    if os.access(state.instances, os.R_OK | os.W_OK | os.X_OK):
        return _finding("state", Level.OK, f"{state.path} can be written")
    return _finding(
        "state", Level.ERROR, f"{state.path} cannot be written", f"chown -R $USER {state.path}"
    )


def _program(name: str) -> Finding:
    found = launch_plan.find(name)
    if found is None:
        fix = f"apt install {launch_plan.package(name)}"
        return _finding(name, Level.ERROR, f"{name} is not installed", fix)
    if name != launch_plan.emulator():
        return _finding(name, Level.OK, found)
    version = accel.version(found)
    major = version.split(".")[0]
    if not major.isdigit() or int(major) < 9:
        fix = "use Debian 13 or newer"
        return _finding(name, Level.ERROR, f"QEMU {version or '?'} is older than 9.0", fix)
    return _finding(name, Level.OK, f"QEMU {version}")


def _namespaces() -> Finding:
    """Namespaces are tried, not guessed from one of the many switches that forbid them."""
    try:
        _make_namespaces()
    except subprocess.CalledProcessError as error:
        why = error.stderr.strip() or str(error)
    except (OSError, subprocess.SubprocessError) as error:
        why = str(error)
    else:
        return _finding("namespaces", Level.OK, "user namespaces can be made")
    fix = "sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
    return _finding("namespaces", Level.ERROR, f"no user namespaces: {why}", fix)


@functools.cache
def _make_namespaces() -> None:
    """Raise when none can be made. Each submission asks: what worked once in this process is not
    tried again."""
    subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--pid", "--mount", "--fork", "true"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )


def _group() -> Finding:
    if cgroup.place() is not None:
        return _finding("cgroup", Level.OK, "each VM has a control group of its own")
    message = "no control group can be made here: rlimits alone hold a QEMU that was taken over"
    fix = "systemd-run --user --scope vmrunner …; in a service Delegate=yes and DelegateSubgroup="
    return _finding("cgroup", Level.WARNING, message, fix)


def _resolver(options: QemuOptions) -> Finding:
    address, why = dns.choose(options.dns, network.host_prefixes())
    message = f"builds with network open ask {address} for names ({why})"
    return _finding("resolver", Level.OK, message)


def _allow_list() -> Finding:
    missing = [name for name in ("nft", "pasta") if launch_plan.find(name) is None]
    if missing:
        message = f"no VM can be held to one without {' and '.join(missing)}"
        fix = f"apt install {' '.join(map(launch_plan.package, missing))}"
        return _finding("allow-list", Level.ERROR, message, fix)
    return _finding("allow-list", Level.OK, "a proxy outside the VM can hold it to one")


def _tun() -> Finding:
    try:
        launch_plan.needs_tun(processes.user("vm"))
    except ProviderError as error:
        return _finding("tun", Level.ERROR, str(error.args[0]), error.hint)
    return _finding("tun", Level.OK, f"{launch_plan.TUN} can be used")


def _image(options: QemuOptions) -> list[Finding]:
    """The image, and the accelerator that boots it."""
    try:
        image = local_images.resolve(options.cache_dir, options.image, options.current)
    except ProviderError as error:
        fix = error.hint or "vmrunner image build"
        return [_finding("image", Level.ERROR, str(error.args[0]), fix)]
    found = [_finding("image", Level.OK, f"{image.name} {image.hash[:12]}")]
    qemu = launch_plan.find(launch_plan.emulator())
    if qemu is None:
        return found
    try:
        chosen = accel.choose(
            options.accel, qemu=qemu, kernel=image.kernel, cache_dir=options.cache_dir
        )
    except ProviderError as error:
        return [*found, _finding("accel", Level.ERROR, str(error.args[0]), error.hint)]
    if chosen.warning:
        fix = "use a host with KVM"
        return [*found, _finding("accel", Level.WARNING, chosen.warning, fix)]
    return [*found, _finding("accel", Level.OK, chosen.name)]


def _disk(options: QemuOptions, state: StateDir) -> Finding:
    free = shutil.disk_usage(state.path).free
    message = f"{free // MiB} MiB free, a VM may take {launch_plan.growth(options.disk) // MiB} MiB"
    if free < launch_plan.growth(options.disk):
        return _finding("disk", Level.ERROR, message, "free some space, or set a smaller `disk`")
    return _finding("disk", Level.OK, message)
