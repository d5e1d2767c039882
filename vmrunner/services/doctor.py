"""Keeping house, once: reap, audit, doctor. What `serve` does all the time is in `daemon`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vmrunner.config.settings import database_url
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.lib import database_url as databaseurl
from vmrunner.lib import units
from vmrunner.model import Finding, Level
from vmrunner.runtime import provider_set

if TYPE_CHECKING:
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.engine.engine import Engine
    from vmrunner.reaper.report import Report
    from vmrunner.runtime.app import App

_LITTLE_SPACE: Final = 5 << 30


def reap(
    wiring: App,
    *,
    provider: str | None = None,
    dry_run: bool = False,
    orphans: bool = False,
) -> Report:
    """One pass over the ledger and the cloud; waits a little to see dead what it killed. Without a
    ledger, over what is past its deadline by its own tags."""
    from vmrunner.reaper import once
    from vmrunner.reaper.report import Report

    only = None if provider is None else wiring.settings.provider(provider)
    try:
        wiring.ledger  # noqa: B018 - to open it
    except VmrunnerError as error:
        lost = Report(unread=(f"the ledger is out of reach: {error}",))
        return wiring.end_expired(only=only, dry_run=dry_run, seconds=once.SETTLE) + lost
    with _engine(wiring) as engine:
        report = once.reap(engine, dry_run=dry_run, provider=only, orphans=orphans)
    _, broken = provider_set.opened(wiring)
    return report + Report(unread=tuple(str(e) for n, e in broken.items() if only in (None, n)))


def audit(
    wiring: App,
    *,
    provider: str | None = None,
    tag: tuple[str, str] | None = None,
    older_than: float | None = None,
) -> list[Survivor]:
    """The cloud against the ledger: what is alive and should not be, and whether nobody reaps.

    With `tag` and `older_than` (seconds), only this: the machines with that tag that are older,
    whoever made them."""
    from vmrunner.services import audit as auditing

    only = None if provider is None else wiring.settings.provider(provider)
    if (tag is None) != (older_than is None):
        raise ConfigError(
            "audit: --tag and --older-than belong together",
            hint="--tag team=ci --older-than 6h",
        )
    if tag is not None and older_than is not None:
        return auditing.foreign(wiring, only, tag, older_than)
    return auditing.check(wiring, only)


def doctor(wiring: App, *, provider: str | None = None) -> list[Finding]:
    """Is everything there, and allowed?"""
    if provider is not None:
        return list(_provider(wiring, wiring.settings.provider(provider)))
    findings = [_ledger(wiring), *_reaper(wiring), *_due(wiring), _space(wiring)]
    opened, broken = provider_set.opened(wiring)
    for name in dict.fromkeys((*wiring.settings.providers, *opened, *broken)):
        findings += _provider(wiring, name)
    return findings


@contextmanager
def _engine(wiring: App) -> Iterator[Engine]:
    """An engine that does not run: it only brings the parts together."""
    engine = wiring.engine("once", listen=False)
    try:
        yield engine
    finally:
        engine.close()


def _ledger(wiring: App) -> Finding:
    url = databaseurl.shown(database_url(wiring.settings))
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
    if wiring.served():
        return Finding(check="ledger", level=Level.OK, message=f"{url}: an engine serves it")
    builds = {b.id for b in (*wiring.ledger.builds.driven(), *wiring.ledger.builds.queued())}
    left = f", and {len(builds)} builds wait for one" if builds else ""
    return Finding(
        check="ledger",
        level=Level.WARNING if builds else Level.OK,
        message=f"{url}: no engine serves it now{left}",
        fix="vmrunner serve" if builds else "",
    )


def _reaper(wiring: App) -> Iterator[Finding]:
    """Does somebody reap, as far as somebody should?"""
    from vmrunner.services import audit as auditing

    try:
        watch, silent = auditing.watch(wiring), auditing.silence(wiring)
    except VmrunnerError:
        return  # the ledger has its own finding
    for line in silent:
        yield Finding(
            check="reaper",
            level=Level.ERROR,
            message=line.message,
            fix="restart `vmrunner serve`" if watch.serving else "vmrunner reap, or vmrunner serve",
        )
    if not silent:
        now = time.time()
        told = [
            f"{what} {units.span(max(0.0, now - at))} ago"
            for what, at in (("a pass", watch.passed), ("a sweep", watch.swept))
            if at is not None
        ]
        text = ", ".join(told) or "it has never run"
        yield Finding(check="reaper", level=Level.OK, message=text)


def _due(wiring: App) -> Iterator[Finding]:
    """What a reap would end by the ledger alone, while nobody serves who will."""
    from vmrunner.engine.membership import Membership
    from vmrunner.reaper.reaper import Reaper

    try:
        if wiring.served():
            return
        with _engine(wiring) as engine:
            peers = Membership(one_host=wiring.one_host)
            reaping = Reaper(engine.desk, peers, lambda: engine.watching)
            lines = reaping.run(sweep=False, dry_run=True).lines
    except VmrunnerError:
        return  # the ledger has its own finding
    if lines:
        named = ", ".join(dict.fromkeys(f"{line.id} ({line.reason.value})" for line in lines))
        yield Finding(
            check="reaper",
            level=Level.WARNING,
            message=f"has to die, and no engine serves that would see to it: {named}",
            fix="vmrunner reap, or vmrunner serve",
        )


def _space(wiring: App) -> Finding:
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


def _provider(wiring: App, name: str) -> Iterator[Finding]:
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
