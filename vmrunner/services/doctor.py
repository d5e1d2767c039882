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
    app: App,
    *,
    provider: str | None = None,
    dry_run: bool = False,
    orphans: bool = False,
) -> Report:
    """One pass over the ledger and the cloud; waits a little to see dead what it killed. Without a
    ledger, over what is past its deadline by its own tags."""
    from vmrunner.reaper import once
    from vmrunner.reaper.report import Report

    only = None if provider is None else app.settings.provider(provider)
    try:
        app.ledger  # noqa: B018 - to open it
    except VmrunnerError as error:
        lost = Report(unread=(f"the ledger is out of reach: {error}",))
        return app.end_expired(only=only, dry_run=dry_run, seconds=once.SETTLE) + lost
    with _engine(app) as engine:
        report = once.reap(engine, dry_run=dry_run, provider=only, orphans=orphans)
    _, broken = provider_set.opened(app)
    return report + Report(unread=tuple(str(e) for n, e in broken.items() if only in (None, n)))


def audit(
    app: App,
    *,
    provider: str | None = None,
    tag: tuple[str, str] | None = None,
    older_than: float | None = None,
) -> list[Survivor]:
    """The cloud against the ledger: what is alive and should not be, and whether nobody reaps.

    With `tag` and `older_than` (seconds), only this: the machines with that tag that are older,
    whoever made them."""
    from vmrunner.services import audit as auditing

    only = None if provider is None else app.settings.provider(provider)
    if (tag is None) != (older_than is None):
        raise ConfigError(
            "audit: --tag and --older-than belong together",
            hint="--tag team=ci --older-than 6h",
        )
    if tag is not None and older_than is not None:
        return auditing.foreign(app, only, tag, older_than)
    return auditing.check(app, only)


def doctor(app: App, *, provider: str | None = None) -> list[Finding]:
    """Is everything there, and allowed?"""
    if provider is not None:
        return list(_provider(app, app.settings.provider(provider)))
    findings = [_ledger(app), *_reaper(app), *_due(app), _space(app)]
    opened, broken = provider_set.opened(app)
    for name in dict.fromkeys((*app.settings.providers, *opened, *broken)):
        findings += _provider(app, name)
    return findings


@contextmanager
def _engine(app: App) -> Iterator[Engine]:
    """An engine that does not run: it only brings the parts together."""
    engine = app.engine("once", listen=False)
    try:
        yield engine
    finally:
        engine.close()


def _ledger(app: App) -> Finding:
    url = databaseurl.shown(database_url(app.settings))
    try:
        paused = app.ledger.paused
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
    if app.served():
        return Finding(check="ledger", level=Level.OK, message=f"{url}: an engine serves it")
    builds = {b.id for b in (*app.ledger.builds.driven(), *app.ledger.builds.queued())}
    left = f", and {len(builds)} builds wait for one" if builds else ""
    return Finding(
        check="ledger",
        level=Level.WARNING if builds else Level.OK,
        message=f"{url}: no engine serves it now{left}",
        fix="vmrunner serve" if builds else "",
    )


def _reaper(app: App) -> Iterator[Finding]:
    """Does somebody reap, as far as somebody should?"""
    from vmrunner.services import audit as auditing

    try:
        watch, silent = auditing.watch(app), auditing.silence(app)
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


def _due(app: App) -> Iterator[Finding]:
    """What a reap would end by the ledger alone, while nobody serves who will."""
    from vmrunner.engine.membership import Membership
    from vmrunner.reaper.reaper import Reaper

    try:
        if app.served():
            return
        with _engine(app) as engine:
            membership = Membership(one_host=app.one_host)
            reaping = Reaper(engine.context, membership, lambda: engine.watching)
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


def _space(app: App) -> Finding:
    place = app.paths.data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    level = Level.OK if free >= _LITTLE_SPACE else Level.WARNING
    return Finding(
        check="disk",
        level=level,
        message=f"{free / (1 << 30):.1f} GiB free for {app.paths.data}",
        fix="" if level is Level.OK else "make room: logs, sources and artifacts lie there",
    )


def _provider(app: App, name: str) -> Iterator[Finding]:
    try:
        checks = app.provider(name).check()
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
