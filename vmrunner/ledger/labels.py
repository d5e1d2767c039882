"""Labels of builds: to find builds, and to know their tenants."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vmrunner.ledger.sql import ColumnElement, Connection, and_, func, or_, select
from vmrunner.ledger.statements import Prepared, run
from vmrunner.ledger.tables import BUILDS, LABELS, TOKENS
from vmrunner.model.principals import TRUSTED_TENANTS

if TYPE_CHECKING:
    from vmrunner.core.cost_report import Owner

_b, _l, _t = BUILDS.c, LABELS.c, TOKENS.c
_FORCED = Prepared(
    lambda: select(_t.labels).where(_t.labels != "{}", _t.revoked_at.is_(None)).distinct()
)


def having(build: ColumnElement[Any], labels: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Return the conditions under which the build in that column has all these labels."""
    return [
        build.in_(select(_l.build).where(_l.name == name, _l.value == value))
        for name, value in labels.items()
    ]


def owned(own: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Return the conditions under which a row of `builds` is of the principal with this label
    filter; see `Principal.sees`."""
    return [*having(_b.id, own), _of_tenant(own)] if own else []


def owned_by(build: ColumnElement[Any], own: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Return the same of the build that a column of another table names."""
    return [
        build.in_(
            select(_l.build)
            .join_from(LABELS, BUILDS, _b.id == _l.build)
            .where(_l.name == name, _l.value == value, _of_tenant({name: value}))
        )
        for name, value in own.items()
    ]


def _of_tenant(own: Mapping[str, str]) -> ColumnElement[bool]:
    """A tenant's name is its filter as JSON, in which no quote of a value looks like one of a
    name. `replace` tells large letters from small ones at every database."""
    pairs = (json.dumps({name: value})[1:-1] for name, value in own.items())
    has = (func.replace(_b.tenant, pair, "") != _b.tenant for pair in pairs)
    return or_(_b.tenant.in_(TRUSTED_TENANTS), and_(*has))


def forced_names(connection: Connection) -> set[str]:
    """The names of the labels that tokens force, but for revoked ones. Those of an expired one
    count: its tenant, with its budgets and webhooks, may come back by a renewal."""
    return {name for row in _FORCED(connection).all() for name in json.loads(row[0])}


def owners_of(connection: Connection, tenants: Mapping[str, str]) -> dict[str, Owner]:
    """Return the owners of these builds, whose tenants are given."""
    from vmrunner.core.cost_report import Owner

    labels: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    query = select(_l.build, _l.name, _l.value).where(_l.build.in_(tenants))
    for build, name, value in run(connection, query):
        labels[build].append((name, value))
    return {build: Owner(tenant, tuple(sorted(labels[build]))) for build, tenant in tenants.items()}
