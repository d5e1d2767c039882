"""The gathering of a pass: the cloud first, page by page, and then the ledger.

So whatever is stale can only make the reaper do less. No page is kept (see `core.sweep_view`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from vmrunner.core.row_index import refs_of
from vmrunner.core.sweep_view import UNUSED, SweepView, ours
from vmrunner.engine.context import WorkContext, log
from vmrunner.engine.early_deaths import early_deaths
from vmrunner.engine.membership import Membership
from vmrunner.errors import VmrunnerError
from vmrunner.ledger import Ledger
from vmrunner.ledger.open_rows import OpenRowsReader
from vmrunner.model import BuildRecord, Death, Instance, Kind, Resource
from vmrunner.providers import Provider
from vmrunner.reaper.ledger_calls import AsksLedger, at_once


@dataclass(slots=True)
class LedgerView:
    """The ledger as it answered; empty when it was out of reach. `unread`: the rows of it that
    could not be read, by id: nothing is known of what they are about. `early_deaths`: authorised
    ones, by instance id."""

    by_id: dict[str, Instance] = field(default_factory=dict)
    builds: dict[str, BuildRecord] = field(default_factory=dict)
    early_deaths: dict[str, Death] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    used: frozenset[str] | None = None  # names of definitions, where a sweep shows old ones
    down: str = ""

    def fail(self, error: Exception) -> None:
        log.error("reaping without the ledger: %s", error, exc_info=_unexpected(error))
        self.by_id, self.builds, self.early_deaths = {}, {}, {}
        self.down = str(error) or type(error).__name__


#: Gives the rows of resources, by id.
RowsOfPage = Callable[[Collection[Resource]], Mapping[str, Instance]]
#: Called after each page with its resources, and the rows of those that have one.
OnPage = Callable[[Iterable[Resource], Mapping[str, Instance]], None]


def gather(
    context: WorkContext,
    membership: Membership,
    provider: Provider,
    reader: OpenRowsReader,
    *,
    sweep: bool,
    on_page: OnPage | None = None,
    ask: AsksLedger = at_once,
) -> tuple[SweepView, LedgerView]:
    """List the cloud, if `sweep`, and read the ledger: the open rows of this provider's scopes, and
    the rows of all that the listing kept; the rows before the builds (see `reconciler`). Whatever
    goes wrong with the ledger, what is past its deadline is listed."""
    ledger, ledger_view = context.ledger, LedgerView()
    if sweep:
        try:
            ask(ledger.recognise)
        except Exception as error:  # noqa: BLE001
            ledger_view.fail(error)
    sweep_view = SweepView(context.limits.limits, ledger.installation, ledger.generation)
    if sweep:
        rows_of = partial(_page_rows, context, ledger_view, ask)
        kept = read_sweep(provider, sweep_view, rows_of, on_page)
        if not ledger_view.down:  # a row whose build was not read would seem to be needed by none
            ledger_view.by_id |= kept
    try:
        if not ledger_view.down:
            _read(context, membership, provider, reader, sweep_view, ledger_view, ask)
    except Exception as error:  # noqa: BLE001
        ledger_view.fail(error)
    return sweep_view, ledger_view


def read_sweep(
    provider: Provider,
    sweep_view: SweepView,
    rows_of: RowsOfPage,
    on_page: OnPage | None = None,
) -> dict[str, Instance]:
    """Sweep; `rows_of` gives the rows of a page, `on_page` is called after each page, since
    the next may be long in coming. Returns the rows of all that the listing keeps whole. The sweep
    is begun again, once, where the cloud's clock turns out to be another: it may only be slow. A
    driver promises not to raise half way; should it, what came before counts."""
    kept = _read_pages(provider, sweep_view, rows_of, on_page, breaks_off=True)
    if sweep_view.jumped:
        sweep_view.clear()
        kept = _read_pages(provider, sweep_view, rows_of, on_page, breaks_off=False)
    return kept


def _read_pages(
    provider: Provider,
    sweep_view: SweepView,
    rows_of: RowsOfPage,
    on_page: OnPage | None,
    *,
    breaks_off: bool,
) -> dict[str, Instance]:
    kept: dict[str, Instance] = {}
    shown = False
    sweep_view.begun = provider.now()
    try:
        for page in provider.sweep():
            shown = True
            rows = rows_of(page.resources)
            names = sweep_view.take(page, rows, provider.now())
            kept |= {name: rows[name] for name in names & rows.keys()}
            if on_page is not None:
                on_page(page.resources, rows)
            if sweep_view.jumped and breaks_off:
                break
        if not shown:  # an empty place is a page too
            sweep_view.stopped = "it showed nothing at all"
    except Exception as error:  # noqa: BLE001
        log.error("sweeping %s: %s", provider.name, error, exc_info=_unexpected(error))
        sweep_view.stopped = f"it ended early: {type(error).__name__}: {error}"
    return kept


def _read(
    context: WorkContext,
    membership: Membership,
    provider: Provider,
    reader: OpenRowsReader,
    sweep_view: SweepView,
    ledger_view: LedgerView,
    ask: AsksLedger,
) -> None:
    ledger = context.ledger
    found = ask(lambda: reader.read(context.monotonic()))
    scopes = provider.scopes
    ledger_view.by_id |= {
        row.id: row
        for row in found.rows.values()
        if row.scope in scopes and not _anothers(context, provider, row)
    }
    ledger_view.builds = dict(found.builds)
    ledger_view.unread = found.unread
    membership.update(ask(ledger.engines.list), context.monotonic())
    strange = {r.instance for r in sweep_view.resources if r.instance} - ledger_view.by_id.keys()
    sweep_view.rowed = ask(lambda: ledger.instances.known(strange))
    if any(r.ref.kind is Kind.DEFINITION for r in sweep_view.resources):
        since = provider.now() - UNUSED
        with context.guard("definitions"):
            ledger_view.used = ask(lambda: ledger.instances.images(provider.name, since))
    rows = ledger_view.by_id.values()
    ledger_view.early_deaths = ask(
        lambda: early_deaths(context, membership, rows, ledger_view.builds, ledger_view.unread)
    )


def _anothers(context: WorkContext, provider: Provider, row: Instance) -> bool:
    """True if the provider of its name is another one that has its scope too."""
    named = None if row.provider == provider.name else context.providers.get(row.provider)
    return named is not None and row.scope in named.scopes


def _page_rows(
    context: WorkContext,
    ledger_view: LedgerView,
    ask: AsksLedger,
    resources: Collection[Resource],
) -> dict[str, Instance]:
    """The rows of what a page shows. Once the ledger fails, it is left alone for this pass."""
    try:
        if not ledger_view.down:
            return ask(lambda: rows_of_resources(context.ledger, resources))
    except Exception as error:  # noqa: BLE001
        ledger_view.fail(error)
    return {}


def rows_of_resources(ledger: Ledger, resources: Collection[Resource]) -> dict[str, Instance]:
    """The rows of these resources, by id: those that their tags name, open or gone, and of ours
    whose tag names none the open ones that recorded them."""
    instances = ledger.instances
    rows = {row.id: row for row in instances.these({r.instance for r in resources if r.instance})}
    nameless = (r for r in resources if r.instance not in rows and ours(r, ledger.installation))
    refs = {ref for resource in nameless for ref in refs_of(resource)}
    return rows | {row.id: row for row in instances.recorded(refs)} if refs else rows


def _unexpected(error: Exception) -> bool:
    """True for an unexpected exception, which is logged with its traceback."""
    return not isinstance(error, VmrunnerError)
