"""Local VMs under QEMU.

`settings.py`, `options.py` what can be configured · `provider.py` the port
`launch_plan.py` an order made concrete
`keeper.py` the VM's parent process · `jail.py` the namespaces it lies in
`layout.py` what is where on disk · `host.py` processes and who they are
`machine.py` the command line · `network.py` the wall round it · `seed.py` the NoCloud disk
`accel.py` which accelerator really boots · `doctor.py` what is missing, and its fix

Little is imported here: the keeper starts in milliseconds because it loads only what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmrunner.providers.port import Driver

if TYPE_CHECKING:
    from vmrunner.providers.qemu.provider import QemuProvider


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


DRIVER = Driver(
    kind="qemu",
    settings="vmrunner.providers.qemu.settings:QemuSettings",
    open=open,
    needs=frozenset({"state_dir", "cache_dir", "installation", "current"}),
    options="vmrunner.providers.qemu.options:QemuOptions",
)
