"""The audit: list the clouds, read the ledger, compare. No engine, no reaper."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from vmrunner.core import audit_rules
from vmrunner.core.audit_rules import ReaperActivity, Survivor
from vmrunner.engine.membership import beats
from vmrunner.errors import LedgerError
from vmrunner.lib import units
from vmrunner.providers.retired_providers import RetiredProvider, parts
from vmrunner.reaper.once import last_sweeps
from vmrunner.runtime import background

if TYPE_CHECKING:
    from vmrunner.errors import VmrunnerError
    from vmrunner.ledger import Ledger
    from vmrunner.model import Limits, Page, Scope
    from vmrunner.providers import Provider
    from vmrunner.runtime.ledger_opener import LedgerOpener
    from vmrunner.runtime.provider_set import ProviderSet

log = logging.getLogger("vmrunner")


#: Drivers by their provider's name: each has a clock of its own.
_Chosen = Sequence[tuple[str, "Provider"]]


def audit(
    ledgers: LedgerOpener,
    providers: ProviderSet,
    limits: Limits,
    *,
    provider: str | None = None,
    tag: tuple[str, str] | None = None,
    older_than: float | None = None,
) -> list[Survivor]:
    """The cloud against the ledger: what is alive and should not be, and whether no engine reaps.

    With `tag` and `older_than` (seconds), only this: the machines with that tag that are older,
    of any maker."""
    only = providers.named(provider)
    units.together({"tag": tag, "older_than": older_than})
    opened, broken = providers.opened()
    several = [(name, driver) for name, driver in opened.items() if only in (None, name)]
    chosen = [(name, part) for name, driver in several for part in parts(name, driver).values()]
    if tag is not None and older_than is not None:
        found = _foreign(chosen, tag, older_than)
    else:
        found = _ours(ledgers, chosen, limits)
    return found + _unopened(broken, only)


def _ours(ledgers: LedgerOpener, chosen: _Chosen, limits: Limits) -> list[Survivor]:
    """All that is wrong: with these providers, and with those who reap."""
    found: list[Survivor] = []
    try:
        ledger = ledgers.open()
        for name, driver in chosen:
            found += survivors(ledger, limits, name, driver)
        found += silence(ledger) + clocks(ledger)
    except LedgerError as error:
        found = [audit_rules.unread("the ledger", str(error))]
        for name, driver in chosen:
            found += alone(ledgers.installation, limits, name, driver)
    return found


def _foreign(chosen: _Chosen, tag: tuple[str, str], age: float) -> list[Survivor]:
    """The machines with this tag that are older than this, of any maker."""
    found = []
    for name, driver in chosen:
        pages, errors = _list(name, driver)
        found += audit_rules.older_than(driver.now(), pages, *tag, age) + errors
        found += [audit_rules.unread(name, f"{p.scope}: {p.error}") for p in pages if p.error]
    return found


def survivors(ledger: Ledger, limits: Limits, name: str, provider: Provider) -> list[Survivor]:
    """The audit of one driver. The cloud is listed first, so that what is stale is the ledger's
    silence and not the cloud's."""
    pages, errors = _list(name, provider)
    shown = {r.instance for page in pages for r in page.resources if r.instance}
    rows = {row.id: row for row in ledger.instances.these(shown)}
    still, driven = ledger.instances.open(), ledger.builds.driven()
    scopes = provider.scopes if isinstance(provider, RetiredProvider) else None
    own = [row for row in still if row.provider == provider.name]
    rows |= {row.id: row for row in own if scopes is None or row.scope in scopes}
    images = ledger.images.open()
    idle = _idle(ledger, provider.name, pages)
    for scope, why in idle.items():
        log.warning("%s: %s cannot be read, and nothing of ours was there: %s", name, scope, why)
    pages = [page for page in pages if page.scope not in idle]
    builders = {image.builder for image in images}
    found = audit_rules.audit(
        provider.now(), rows.values(), pages, limits, ledger.installation, builders=builders
    )
    bad = sorted(still.unread | driven.unread | images.unread)
    return (
        found
        + errors
        + [audit_rules.unread(name, f"the row of {row} cannot be read") for row in bad]
    )


def _idle(ledger: Ledger, name: str, pages: list[Page]) -> dict[Scope, str]:
    """See `audit.idle`. Where the ledger cannot tell all that was used, no scope is idle."""
    if not any(page.error for page in pages):
        return {}
    try:
        scopes = ledger.instances.places(name) | ledger.images.places(name)
    except LedgerError:
        raise
    except Exception as error:  # noqa: BLE001 - a row that makes no sense may be of any place
        log.warning("where %s launched cannot be told: %s", name, error)
        return {}
    # Places of which something was seen that is not settled yet.
    unsettled = {s.place for s in ledger.sightings.list(name, {str(p.scope) for p in pages})}
    return audit_rules.idle(
        pages, scopes | {page.scope for page in pages if str(page.scope) in unsettled}
    )


def alone(installation: str, limits: Limits, name: str, provider: Provider) -> list[Survivor]:
    """The audit of one driver without a ledger, by the tags."""
    pages, errors = _list(name, provider)
    return audit_rules.by_tags(provider.now(), pages, limits, installation) + errors


def silence(ledger: Ledger) -> list[Survivor]:
    """Return the faults of a reaper that is silent."""
    return audit_rules.silence(ledger.engines.now(), ledger.instances.open(), watch(ledger))


def clocks(ledger: Ledger) -> list[Survivor]:
    """Return the faults of the clocks of those who serve."""
    return audit_rules.clocks(ledger.engines.now(), watch(ledger))


def watch(ledger: Ledger) -> ReaperActivity:
    """The last passes, sweeps and clocks of the engines that reap, as the ledger has them."""
    members, now = ledger.engines.list(), ledger.engines.now()
    done = ledger.engines.heartbeats({member.id: member.ahead for member in members})
    return ReaperActivity(
        passed=done.get("pass"),
        swept=done.get("sweep"),
        seen=max((member.beat_at for member in members), default=None),
        serving=background.since(ledger),
        scopes=last_sweeps(done),
        ahead={
            f"{beating.id}, process {beating.process.pid} of machine "
            f"{beating.process.machine[:12]}": beating.ahead
            for beating in members
            if beats(beating, now)
        },
    )


def _list(name: str, provider: Provider) -> tuple[list[Page], list[Survivor]]:
    """All pages that came, and what kept the others from coming."""
    pages: list[Page] = []
    try:
        pages.extend(provider.sweep())
    except Exception as error:  # noqa: BLE001 - one provider never hides the others
        return pages, [audit_rules.unread(name, f"{type(error).__name__}: {error}")]
    return pages, [] if pages else [audit_rules.unread(name, "it showed nothing at all")]


def _unopened(broken: Mapping[str, VmrunnerError], only: str | None) -> list[Survivor]:
    names: Iterable[str] = broken if only is None else broken.keys() & {only}
    return [audit_rules.unread(name, str(broken[name])) for name in names]
