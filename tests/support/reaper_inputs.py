"""Rows, resources and pages for tests of the reaper, and `decide` over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vmrunner.core.lifecycle import SweepId
from vmrunner.core.reap_plan import ReapPlan, Sighting
from vmrunner.core.reap_rules import ReapInput, decide
from vmrunner.core.sweep_view import SweepView
from vmrunner.model import (
    Death,
    Instance,
    InstanceState,
    Kind,
    Limits,
    Offer,
    Page,
    Power,
    Ref,
    Resource,
    Role,
    Scope,
)

SCOPE = Scope("fake", "a", "z")
OTHER = Scope("fake", "a", "y")
MINE, GENERATION = "installation-1", "generation-1"
NOW = 1_000_000.0
LIMITS = Limits()
I = InstanceState  # noqa: E741


def row(name: str = "vm-1", **options: Any) -> Instance:
    defaults: dict[str, Any] = {
        "build": "b-1",
        "attempt": 1,
        "provider": "p",
        "offer": Offer(scope=SCOPE, machine_type="small", place="z"),
        "role": Role.BUILD,
        "state": I.BUSY,
        "created_at": NOW - 3600,
        "state_since": NOW - 60,
        "deadline": NOW + 3600,
        "epoch": 1,
        "ref": Ref(SCOPE, Kind.INSTANCE, f"i-{name}"),
    }
    return Instance(id=name, **(defaults | options))


def vm(instance: str = "vm-1", *, id: str | None = None, **options: Any) -> Resource:  # noqa: A002
    tags = {
        "vmrunner:installation": MINE,
        "vmrunner:generation": GENERATION,
        "vmrunner:role": "build",
        "vmrunner:instance": instance,
        "vmrunner:expires-at": str(int(NOW + 3600)),
    } | options.pop("tags", {})
    kind = options.pop("kind", Kind.INSTANCE)
    defaults: dict[str, Any] = {"power": Power.RUNNING, "created_at": NOW - 3600}
    return Resource(
        ref=Ref(options.pop("scope", SCOPE), kind, id or f"i-{instance}"),
        tags={k: v for k, v in tags.items() if v is not None},
        **(defaults | options),
    )


def page(*resources: Resource, kind: Kind = Kind.INSTANCE, **options: Any) -> Page:
    return Page(scope=SCOPE, kind=kind, resources=resources, **options)


def reaped(
    rows: list[Instance] | None = None,
    pages: list[Page] | None = None,
    sightings: frozenset[Sighting] = frozenset(),
    installation: str = MINE,
    **options: Any,
) -> ReapPlan:
    sweep_view = SweepView(LIMITS, installation, GENERATION)
    by_id = {instance.id: instance for instance in rows or []}
    for part in pages or []:
        sweep_view.take(part, by_id, NOW)
    defaults: dict[str, Any] = {"sweep": SweepId(id="s-2", begun=NOW)}
    given = {"now": NOW, "rows": by_id, "sweep_view": sweep_view, "sightings": sightings}
    return decide(ReapInput(**(given | defaults | options)))


def killed(plan: ReapPlan) -> list[tuple[str, Death]]:
    return [(kill.ref.id, kill.reason) for kill in plan.kills]


def before(plan: ReapPlan, seconds: float = 300) -> frozenset[Sighting]:
    """The sightings of an earlier sweep, as a later one finds them."""
    return frozenset(replace(s, sweep="s-1", begun=NOW - seconds) for s in plan.sightings)
