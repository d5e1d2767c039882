"""Keeping house, once: reap, audit, doctor. What `serve` does all the time is in `daemon`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vmrunner.config import database_url, shown_url
from vmrunner.errors import VmrunnerError
from vmrunner.model import Finding, Level

if TYPE_CHECKING:
    from vmrunner.audit import Survivor
    from vmrunner.desk import Desk
    from vmrunner.engine import Engine
    from vmrunner.providers import Provider
    from vmrunner.reaping import Report
    from vmrunner.wiring import Wiring

_LITTLE_SPACE: Final = 5 << 30


def reap(wiring: Wiring, *, provider: str | None = None, dry_run: bool = False) -> Report:
    """One pass over the ledger and the cloud; waits a little to see dead what it killed."""
    from vmrunner import daemon

    only = None if provider is None else wiring.settings.provider(provider)
    with _engine(wiring) as engine:
        return daemon.reap(engine, dry_run=dry_run, provider=only)


def audit(wiring: Wiring, *, provider: str | None = None) -> list[Survivor]:
    """The cloud against the ledger: what is alive and should not be."""
    only = None if provider is None else wiring.settings.provider(provider)
    found: list[Survivor] = []
    with _engine(wiring) as engine:
        for name, driver in engine.desk.providers.items():
            if only in (None, name):
                found += survivors(engine.desk, name, driver)
    return found


def survivors(desk: Desk, name: str, provider: Provider) -> list[Survivor]:
    """The audit of one provider: list the cloud, read the ledger, compare."""
    from vmrunner.audit import audit as compare

    pages, ledger = list(provider.sweep()), desk.ledger
    shown = {r.instance for page in pages for r in page.resources if r.instance}
    rows = {row.id: row for row in ledger.instances.these(shown)}
    rows |= {row.id: row for row in ledger.instances.open() if row.provider == name}
    return compare(provider.now(), rows.values(), pages, desk.limits.limits, ledger.installation)


def doctor(wiring: Wiring, *, provider: str | None = None) -> list[Finding]:
    """Is everything there, and allowed?"""
    if provider is not None:
        return list(_provider(wiring, wiring.settings.provider(provider)))
    findings = [_ledger(wiring), _space(wiring)]
    for name in wiring.settings.providers:
        findings += _provider(wiring, name)
    return findings


@contextmanager
def _engine(wiring: Wiring) -> Iterator[Engine]:
    """An engine that does not run: it only brings the parts together."""
    engine = wiring.engine("once", listen=False)
    try:
        yield engine
    finally:
        engine.close()


def _ledger(wiring: Wiring) -> Finding:
    url = shown_url(database_url(wiring.settings))
    try:
        paused = wiring.ledger.paused
    except VmrunnerError as error:
        return Finding(
            check="ledger", level=Level.ERROR, message=str(error.args[0]), fix=error.hint
        )
    if paused:
        return Finding(
            check="ledger",
            level=Level.WARNING,
            message=f"{url}: launching is stopped",
            fix="vmrunner drain --off",
        )
    served = "an engine serves it" if wiring.served() else "no engine serves it now"
    return Finding(check="ledger", level=Level.OK, message=f"{url}: {served}")


def _space(wiring: Wiring) -> Finding:
    place = wiring.paths.data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    level = Level.OK if free >= _LITTLE_SPACE else Level.WARNING
    return Finding(
        check="disk",
        level=level,
        message=f"{free / (1 << 30):.1f} GiB free for {wiring.paths.data}",
        fix="" if level is Level.OK else "make room: logs, sources and artifacts lie there",
    )


def _provider(wiring: Wiring, name: str) -> Iterator[Finding]:
    try:
        checks = wiring.provider(name).check()
    except VmrunnerError as error:
        checks = [
            Finding(check="open", level=Level.ERROR, message=str(error.args[0]), fix=error.hint)
        ]
    for found in checks:
        yield Finding(
            check=f"{name}: {found.check}",
            level=found.level,
            message=found.message,
            fix=found.fix,
        )
