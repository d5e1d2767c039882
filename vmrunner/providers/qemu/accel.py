"""Choice of the accelerator: one that really boots a kernel here.

That /dev/kvm opens proves nothing: under nested or paravirtual KVM a guest may never come up. So
`auto` boots the image's own kernel once, with no disk, and looks for the kernel's last words. The
answer is kept per host kernel and QEMU version.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from vmrunner.errors import BadOrder
from vmrunner.lib import cache_dirs
from vmrunner.providers.qemu import state_dir

KVM: Final = Path("/dev/kvm")
_FILE: Final = "accel.json"
_PROBE: Final = 20.0  # seconds; a real KVM needs one
# A kernel that got this far has run on every kind of hardware that a boot needs.
_PROOF: Final = b"Kernel panic - not syncing: VFS"


class Accel(NamedTuple):
    """The choice, and what a user should be told about it."""

    name: str  # kvm or tcg
    warning: str = ""


def choose(requested: str, *, qemu: str, kernel: Path, cache_dir: Path) -> Accel:
    """The accelerator to use. `requested`: auto, kvm or tcg. Raises BadOrder for kvm that fails."""
    match requested:
        case "tcg":
            return Accel("tcg")
        case "kvm" | "auto":
            why = _kvm_fails(qemu, kernel, cache_dir)
        case _:
            raise BadOrder(f"accel: {requested!r} is none of auto, kvm, tcg")
    if not why:
        return Accel("kvm")
    if requested == "kvm":
        raise BadOrder(f"accel = kvm, but {why}", hint='set accel = "auto"')
    return Accel("tcg", f"{why}: VMs are emulated (TCG), several times slower")


def _kvm_fails(qemu: str, kernel: Path, cache_dir: Path) -> str:
    """Reason why KVM cannot be used; "" when a kernel booted under it."""
    if not KVM.exists():
        return "there is no /dev/kvm"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened (usermod -aG kvm USER)"
    host = f"{platform.release()} {platform.version()} / {version(qemu)}"
    kept = state_dir.read_json(cache_dir / _FILE) or {}
    if kept.get("host") == host:
        return str(kept.get("kvm_fails", ""))
    why = "" if boots(qemu, kernel) else "no kernel boots under this host's KVM"
    with contextlib.suppress(OSError):
        cache_dirs.make(cache_dir)
        state_dir.write_json(cache_dir / _FILE, {"host": host, "kvm_fails": why})
    return why


def boots(qemu: str, kernel: Path, accel: str = "kvm", timeout: float = _PROBE) -> bool:
    """True if a kernel without any disk gets as far as missing it."""
    command = [
        qemu,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-machine", "q35", "-accel", accel, "-cpu", "host" if accel == "kvm" else "max"),
        *("-m", "256M", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-nic", "none"),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as late:
        return _PROOF in (late.stdout or b"")
    except OSError:
        return False
    return _PROOF in done.stdout


def version(qemu: str) -> str:
    """`10.0.13 (Debian …)`; empty when it does not run. The same program is asked once."""
    try:
        program = Path(qemu).stat()
        return _version(qemu, program.st_ino, program.st_mtime_ns)
    except (OSError, subprocess.SubprocessError):
        return ""


@functools.cache
def _version(qemu: str, _inode: int, _changed: int) -> str:
    done = subprocess.run(
        [qemu, "--version"], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.partition("\n")[0].removeprefix("QEMU emulator version ").strip()
