"""Local VMs under QEMU.

Little is imported here: the keeper starts in milliseconds because it loads only what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmrunner.lib.channels import Channel
    from vmrunner.providers.port import Driver, Provider
    from vmrunner.providers.qemu.provider import QemuProvider

    DRIVER: Driver


def open(  # noqa: A001 - as `Driver` calls it
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


def channel(_: Callable[[], Provider]) -> Channel:
    """Return the way to a VM's sshd: the socket in its directory, which its keeper forwards."""
    from vmrunner.lib.channels import UNIX_SOCKET

    return UNIX_SOCKET


def __getattr__(name: str) -> Any:
    if name == "DRIVER":
        return globals().setdefault(name, _driver())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _driver() -> Driver:
    from vmrunner.providers.port import Driver

    return Driver(
        kind="qemu",
        settings="vmrunner.providers.qemu.settings:QemuSettings",
        open=open,
        needs=frozenset({"state_dir", "cache_dir", "installation", "current"}),
        options="vmrunner.providers.qemu.options:QemuOptions",
        host_clock=True,
        own_host=True,
        host_bound=True,
        channel="vmrunner.providers.qemu:channel",
    )
