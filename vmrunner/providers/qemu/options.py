"""Options of a QEMU provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GiB: Final = 1024**3


@dataclass(frozen=True, kw_only=True, slots=True)
class QemuOptions:
    """The defaults are a machine that most builds fit into. Sizes are bytes."""

    name: str
    state_dir: Path  # one directory per VM lies under it
    cache_dir: Path  # images, and what was probed of the host
    installation: str
    accel: str = "auto"  # auto, kvm or tcg
    image: str | None = None  # a name or the beginning of a hash; None: "default", else the newest
    current: Callable[[], str] | None = None  # the hash that "default" must have; None: any
    dns: str = "auto"  # an address whom builds ask for names; auto: as `resolver.choose` has it
    cpus: int = 2
    memory: int = 2 * GiB
    disk: int = 16 * GiB
    templates: bool = True  # start VMs from templates where one fits
    templates_max_bytes: int = 20 * GiB
