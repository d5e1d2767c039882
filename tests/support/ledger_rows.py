"""Rows of the ledger for who only looks at them."""

from __future__ import annotations

from vmrunner.model import Instance, InstanceState, Offer, Role, Scope

SCOPE = Scope("fake", "a", "z")


def instance(name: str, provider: str = "p", scope: Scope = SCOPE) -> Instance:
    """A busy one, of the build `b-<name>`."""
    return Instance(
        id=name,
        build=f"b-{name}",
        attempt=1,
        provider=provider,
        offer=Offer(scope=scope, machine_type="small", place="z"),
        role=Role.BUILD,
        state=InstanceState.BUSY,
        created_at=0,
        state_since=0,
        deadline=1e9,
        epoch=1,
    )
