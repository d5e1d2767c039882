"""Use of a build in one line, for people."""

from __future__ import annotations

from vmrunner.lib import units
from vmrunner.model import BuildUsage


def text(usage: BuildUsage) -> str:
    """All known figures in one line, or ""."""
    forms = (
        ("memory {}", _size(usage.memory_peak)),
        ("CPU {}", _time(usage.cpu_seconds)),
        ("disk {} read", _size(usage.disk_read)),
        ("{} written", _size(usage.disk_written)),
        ("network {} received", _size(usage.network_received)),
        ("{} sent", _size(usage.network_sent)),
        ("VM: CPU {}", _time(usage.vm_cpu_seconds)),
        ("VM: disk {}", _size(usage.vm_disk)),
    )
    return ", ".join(form.format(value) for form, value in forms if value is not None)


def _size(count: int | None) -> str | None:
    return None if count is None else units.amount(count)


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else units.span(seconds)
