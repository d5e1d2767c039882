"""Check that everything is there, and allowed."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from vmrunner.config import contradictions
from vmrunner.engine.cloned_hosts import others_of, refusal
from vmrunner.engine.membership import seems_alive
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.lib import ids, process, units
from vmrunner.lib.database_url import SQLITE
from vmrunner.model import Finding, Level, Trait
from vmrunner.providers import capabilities, registry
from vmrunner.reaper.clock_witness import clock_doubt
from vmrunner.runtime import background
from vmrunner.services import audit, host_limits, login_checks, nodes, notifications, pools
from vmrunner.store import probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vmrunner.config.paths import Paths
    from vmrunner.config.settings import Settings
    from vmrunner.engine.context import EngineLimits
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider
    from vmrunner.runtime.ledger_opener import LedgerOpener
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.store import ObjectStore

_LITTLE_SPACE: Final = 5 << 30


def doctor(
    ledgers: LedgerOpener,
    providers: ProviderSet,
    limits: EngineLimits,
    paths: Paths,
    *,
    store: Callable[[], ObjectStore],
    provider: str | None = None,
) -> list[Finding]:
    """Check that everything is there, and allowed."""
    only = providers.named(provider)
    if only is not None:
        return list(_provider(providers, only))
    findings = [
        *_each("configuration", lambda: _contradictions(providers.settings)),
        *_each("ledger", lambda: [_ledger(ledgers)]),
        *_each("nodes", lambda: _nodes(ledgers)),
        *_each("reaper", lambda: _reaper(ledgers)),
        *_each("reaper", lambda: _due(ledgers, providers, limits, paths)),
        *_each("disk", lambda: [_space(paths.data)]),
        *_each("limits", lambda: _limits(providers, limits)),
        *_each("store", lambda: _store(ledgers, paths.data, store)),
        *_each("pools", lambda: _pools(ledgers, providers)),
        *_each("webhooks", lambda: _webhooks(ledgers, providers)),
        *_each("logins", lambda: login_checks.findings(providers.settings.server)),
    ]
    opened, broken = providers.opened()
    for name in dict.fromkeys((*providers.settings.providers, *opened, *broken)):
        findings += _each(name, lambda name=name: _provider(providers, name))  # type: ignore[misc]
    return findings


def _each(check: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Findings of one check. A system that refuses it, as one whose disk is full, is a
    finding too: doctor is what one runs then."""
    try:
        return list(look())
    except OSError as error:
        fix = "make room" if error.errno == errno.ENOSPC else "see who owns it"
        message = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        return [Finding(check=check, level=Level.ERROR, message=message, fix=fix)]


def _contradictions(settings: Settings) -> Iterator[Finding]:
    """Tell of what the configuration says that cannot be: `serve`, or each build, refuses it."""
    for error in contradictions.of(settings):
        yield Finding(
            check="configuration",
            level=Level.ERROR,
            message=str(error.args[0]),
            fix=error.hint,
        )


def _ledger(ledgers: LedgerOpener) -> Finding:
    url = ledgers.shown
    try:
        ledger = ledgers.open()
        paused = ledger.paused
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
    if background.served(ledger):
        return Finding(check="ledger", level=Level.OK, message=f"{url}: an engine serves it")
    builds = {b.id for b in (*ledger.builds.driven(), *ledger.builds.queued())}
    waiting = f", and {len(builds)} builds wait for one" if builds else ""
    return Finding(
        check="ledger",
        level=Level.WARNING if builds else Level.OK,
        message=f"{url}: no engine serves it now{waiting}",
        fix="vmrunner serve" if builds else "",
    )


def _nodes(ledgers: LedgerOpener) -> Iterator[Finding]:
    try:
        ledger = ledgers.open()
        yield from (*outdated(ledger), *clones(ledger), *failover(ledger), *clocks(ledger))
    except VmrunnerError:
        return  # the ledger has its own finding


def clones(ledger: Ledger) -> Iterator[Finding]:
    """Name hosts with one machine id, this one among them: whose local VMs are whose, no ledger can
    tell."""
    if background.one_host(ledger):
        return
    now = ledger.engines.now()
    living = [
        process_id
        for process_id in ledger.engines.list()
        if seems_alive(process_id, now, one_host=False)
    ]
    errors: dict[str, ConfigError] = {}
    for process_id in (process.current(), *(member.process for member in living)):
        for other in others_of(process_id, living):
            errors.setdefault(other.process.machine, refusal(other))
    for error in errors.values():
        yield Finding(check="nodes", level=Level.ERROR, message=str(error.args[0]), fix=error.hint)


def outdated(ledger: Ledger) -> Iterator[Finding]:
    """Tell of engines that drive nothing any more."""
    for node in nodes.status(ledger, ledger.engines.now()):
        if node.outdated and node.alive:
            yield Finding(
                check="nodes",
                level=Level.ERROR,
                message=f"{node.id}, process {node.pid} on {node.machine[:12]}, neither launches "
                f"nor concludes: it knows version {node.version} of the ledger, which has another",
                fix="restart it with the vmrunner that upgraded the ledger",
            )


def clocks(ledger: Ledger) -> Iterator[Finding]:
    """Tell of clocks that are not the others', or leapt."""
    doubt = clock_doubt(ledger)
    if doubt:
        yield Finding(
            check="clock",
            level=Level.WARNING,
            message=f"{doubt}: retention deletes nothing until that was watched for a day",
            fix="see `date`; if it is right, wait, or vmrunner gc --trust-clock",
        )
    for line in audit.clocks(ledger):
        yield Finding(
            check="clock",
            level=Level.ERROR,
            message=line.message,
            fix="let NTP set the clocks of all nodes and of the database: see `timedatectl`",
        )


def failover(ledger: Ledger) -> Iterator[Finding]:
    """Tell of commits that would be lost with the database's server."""
    risk = ledger.failover_risk()
    if risk:
        yield Finding(
            check="failover",
            level=Level.ERROR,
            message=risk,
            fix="set synchronous_standby_names, and synchronous_commit to on, at the server",
        )


def _store(
    ledgers: LedgerOpener, data: Path, store: Callable[[], ObjectStore]
) -> Iterator[Finding]:
    """Check that an object can be put, read and deleted, by doing it."""
    try:
        ours = ledgers.installation
    except VmrunnerError:
        return  # the ledger has its own finding
    try:
        opened = store()
        probe(opened, f"{ours}/probe/{ids.build_id()}", data)
    except VmrunnerError as error:
        fix = error.hint or "see who owns it, or name another with [store] url"
        yield Finding(check="store", level=Level.ERROR, message=str(error.args[0]), fix=fix)
        return
    if opened.local and not ledgers.shown.startswith(SQLITE):
        yield Finding(
            check="store",
            level=Level.WARNING,
            message=f"{opened.url} is on this host, and nodes of a PostgreSQL ledger share a store",
            fix='[store] url = "s3://bucket/prefix", or a directory that all nodes mount',
        )
    else:
        yield Finding(check="store", level=Level.OK, message=f"{opened.url} can be written")


def _pools(ledgers: LedgerOpener, providers: ProviderSet) -> Iterator[Finding]:
    try:
        yield from pools.findings(ledgers.open(), providers)
    except VmrunnerError:
        return  # the ledger has its own finding


def _webhooks(ledgers: LedgerOpener, providers: ProviderSet) -> Iterator[Finding]:
    """Check that webhooks can be told, and take what they are told."""
    try:
        yield from notifications.findings(ledgers.open(), providers.settings.notify, time.time())
    except VmrunnerError:
        return  # the ledger has its own finding


def _reaper(ledgers: LedgerOpener) -> Iterator[Finding]:
    """Check that an engine reaps, where one should."""
    try:
        ledger = ledgers.open()
        watch, silent = audit.watch(ledger), audit.silence(ledger)
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
        now = ledger.engines.now()
        passes = [
            f"{what} {units.span(max(0.0, now - at))} ago"
            for what, at in (("a pass", watch.passed), ("a sweep", watch.swept))
            if at is not None
        ]
        text = ", ".join(passes) or "it has never run"
        yield Finding(check="reaper", level=Level.OK, message=text)


def _due(
    ledgers: LedgerOpener, providers: ProviderSet, limits: EngineLimits, paths: Paths
) -> Iterator[Finding]:
    """Warn of what a reap would end by the ledger alone, while no engine serves that will."""
    from vmrunner.reaper import once

    try:
        ledger = ledgers.open()
        if background.served(ledger):
            return
        with once.reaper(ledger, providers.all(), limits, paths) as reaper:
            lines = reaper.run(sweep=False, dry_run=True).lines
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


def _space(data: Path) -> Finding:
    place = data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    level = Level.OK if free >= _LITTLE_SPACE else Level.WARNING
    return Finding(
        check="disk",
        level=level,
        message=f"{free / (1 << 30):.1f} GiB free for {data}",
        fix="" if level is Level.OK else "make room: logs, sources and artifacts lie there",
    )


def _limits(providers: ProviderSet, limits: EngineLimits) -> Iterator[Finding]:
    local = any(
        registry.is_host_bound(section.kind) for section in providers.settings.providers.values()
    )
    given = host_limits.of_this_process()
    return host_limits.findings(limits.limits.max_instances, local=local, given=given)


def _box(provider: Provider) -> Iterator[Finding]:
    """Tell what builds cannot ask of a provider that starts the container's image itself."""
    missing = frozenset(Trait) - capabilities.box(provider).keeps
    if missing:
        yield Finding(
            check="box",
            level=Level.OK,
            message="starts a build's container image itself; refuses builds with "
            + capabilities.asked(missing),
        )


def _provider(providers: ProviderSet, name: str) -> Iterator[Finding]:
    try:
        provider = providers.get(name)
        checks = [*provider.check(), *_box(provider)]
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
