"""Local VMs under QEMU.

- port and configuration: `provider.py`, `options.py`, `doctor.py`, `accel.py` (what really boots)
- a launch: `launch_plan.py` (an order made concrete), `command_line.py`, `seed.py` (NoCloud),
  `spawn.py`, `keeper.py` (the VM's parent process)
- what holds QEMU: `jail.py` (namespaces), `jail_root.py`, `seccomp.py`, `syscalls.py`, `cgroup.py`
- its network: `network.py` (the wall round it), `dns.py`, `forward.py` (SSH by a socket)
- what lives here: `state_dir.py`, `processes.py`, `sweep.py`, `console.py`
- images: `local_images.py`, `image_integrity.py`, `cache_dirs.py`

Nothing is imported here: the keeper starts in milliseconds because it loads only what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmrunner.providers.qemu.provider import QemuProvider


def open(  # noqa: A001 - the name that the registry of providers calls
    name: str, *, state_dir: Path, cache_dir: Path, installation: str, **options: Any
) -> QemuProvider:
    """The provider called `name`, with its VMs under `state_dir` and its images under
    `cache_dir`. `options` are the fields of `options.Options`."""
    from vmrunner.providers.qemu.options import QemuOptions
    from vmrunner.providers.qemu.provider import QemuProvider

    return QemuProvider(
        QemuOptions(
            name=name,
            state_dir=Path(state_dir),
            cache_dir=Path(cache_dir),
            installation=installation,
            **options,
        )
    )
