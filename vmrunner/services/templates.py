"""Templates: frozen VMs that local builds start from, made before a build wants one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vmrunner.config.settings import Settings
from vmrunner.core import requirements
from vmrunner.errors import ConfigError, LedgerError, VmrunnerError
from vmrunner.images import templates
from vmrunner.images.template_vms import TemplateVms
from vmrunner.lib import ids, process
from vmrunner.model import BuildSpec
from vmrunner.providers import Provider
from vmrunner.providers.port import StartsFromTemplates
from vmrunner.runtime.background import IMAGE_MAKER

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner")

HEARTBEAT: Final = 20.0  # seconds; without one for a lease, other hosts take it for dead


def make(
    provider: Provider,
    spec: BuildSpec,
    settings: Settings,
    ledger: Ledger,
    *,
    progress: Callable[[str], object] = lambda _: None,
) -> str | None:
    """Make the template for builds like this one and return its key; None: there is one, or none
    would fit. Raises ConfigError, ImageError, LedgerError and what the provider raises."""
    shape = requirements.container(spec, log_bytes=settings.limits.log_bytes)
    if not isinstance(provider, StartsFromTemplates):
        raise ConfigError(
            f"provider: {provider.name} starts no VM from a template", hint="name a local one"
        )
    if shape is None:
        raise ConfigError(
            "bootstrap, container_runtime: such builds start from no template",
            hint="leave them out",
        )
    machine, waiting = requirements.machine(spec), shape.waiting
    with _joined(ledger) as maker:
        vms = TemplateVms(ledger, provider, maker)
        return templates.make(provider, machine, waiting, vms=vms, progress=progress)


@contextmanager
def _joined(ledger: Ledger) -> Iterator[str]:
    """Be among the ledger's members, so that the reaper sees whether this process lives."""
    maker, over = ids.engine_id(), threading.Event()
    ledger.engines.join(maker, process.current(), IMAGE_MAKER, time.time())
    beats = threading.Thread(target=_beat, args=(ledger, maker, over), name="beats", daemon=True)
    beats.start()
    try:
        yield maker
    finally:
        over.set()
        beats.join()
        ledger.engines.leave(maker)


def _beat(ledger: Ledger, maker: str, over: threading.Event) -> None:
    """Tell reapers that cannot see this process, as those of another container, that it lives."""
    while not over.wait(HEARTBEAT):
        try:
            ledger.engines.beat(maker, time.time())
        except LedgerError as error:
            log.warning("%s", error)


def trim(providers: Iterable[Provider]) -> int:
    """Remove templates that have no room or no image any more, and what makers left. Returns how
    many templates went."""
    return sum(
        len(provider.template_maker().trim())
        for provider in providers
        if isinstance(provider, StartsFromTemplates)
    )


def make_wanted(provider: Provider, ledger: Ledger, engine: str) -> str | None:
    """Make the template that a build missed last, if one did and it can be made. `engine`: who
    makes it. Returns its key."""
    if isinstance(provider, StartsFromTemplates):
        vms = TemplateVms(ledger, provider, engine)
        for spec, shape in provider.wanted_templates():
            try:
                if key := templates.make(provider, spec, shape, vms=vms):
                    return key
            except VmrunnerError as error:
                log.warning("%s: no template was made: %s", provider.name, error)
    return None
