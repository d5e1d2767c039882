"""What a pass looks at: the cloud first, page by page, and then the ledger.

So whatever is stale can only make the reaper do less. No page is kept (see `listing`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vmrunner.desk import Desk, log
from vmrunner.errors import LedgerError
from vmrunner.listing import Listing
from vmrunner.model import Build, Instance, Page
from vmrunner.peers import Peers
from vmrunner.providers import Provider


@dataclass(slots=True)
class Known:
    """What the ledger said; nothing at all when it was out of reach."""

    by_id: dict[str, Instance] = field(default_factory=dict)
    builds: dict[str, Build] = field(default_factory=dict)
    down: str = ""

    def fail(self, error: LedgerError) -> None:
        log.error("reaping without the ledger: %s", error)
        self.by_id, self.builds, self.down = {}, {}, str(error)


def survey(
    desk: Desk, peers: Peers, name: str, provider: Provider, *, sweep: bool
) -> tuple[Listing, Known]:
    """List the cloud, if `sweep`, and read the ledger: the open rows of this provider's scopes,
    and the rows of all that the listing kept; the rows before the builds (see `crew`)."""
    ledger, known = desk.ledger, Known()
    if sweep:
        try:
            ledger.recognise()
        except LedgerError as error:
            known.fail(error)
    listing = Listing(desk.limits.limits, ledger.installation, ledger.generation)
    for page in provider.sweep() if sweep else ():
        rows = _shown(desk, page, known)
        kept = listing.take(page, rows, provider.now())
        known.by_id |= {row: rows[row] for row in kept & rows.keys()}
    try:
        if not known.down:
            known.by_id |= {
                row.id: row
                for row in ledger.instances.open()
                if row.provider == name and row.scope in provider.scopes
            }
            known.builds = {build.id: build for build in ledger.builds.driven()}
            peers.look(ledger.engines.list(), desk.monotonic())
    except LedgerError as error:
        known.fail(error)
    return listing, known


def _shown(desk: Desk, page: Page, known: Known) -> dict[str, Instance]:
    """The rows of what a page shows. Once the ledger fails, it is left alone for this pass."""
    try:
        if not known.down:
            ids = {r.instance for r in page.resources if r.instance}
            return {row.id: row for row in desk.ledger.instances.these(ids)}
    except LedgerError as error:
        known.fail(error)
    return {}
