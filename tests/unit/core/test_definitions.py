"""What bills nothing and orders name: it ends a week after its last use, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.reaper_inputs import (
    GENERATION,
    MINE,
    NOW,
    I,
    before,
    killed,
    page,
    reaped,
    row,
    vm,
)
from vmrunner.core.audit_rules import audit
from vmrunner.core.lifecycle import SweepId
from vmrunner.core.reap_rules import soon
from vmrunner.core.sweep_view import UNUSED
from vmrunner.model import Death, Kind, Limits, Resource

DAY = 86400.0
OLD = NOW - UNUSED - 1


def definition(created: float | None = OLD, **options: Any) -> Resource:
    tags = {"vmrunner:instance": None, "vmrunner:expires-at": None} | options.pop("tags", {})
    return vm(id="unit:1", kind=Kind.DEFINITION, created_at=created, tags=tags, **options)


def ends(thing: Resource, **options: Any) -> list[tuple[str, Death]]:
    """What dies of it, at the second sight."""
    pages = [page(), page(thing, kind=Kind.DEFINITION)]
    options = {"used": ()} | options
    memory = before(reaped([row()], pages, **options))
    return killed(reaped([row()], pages, memory, **options))


def test_one_that_nobody_names_for_a_week_ends() -> None:
    assert ends(definition()) == [("unit:1", Death.LEFTOVER)]
    assert ends(definition(), used=("unit:2",)) == [("unit:1", Death.LEFTOVER)]


@pytest.mark.parametrize(
    ("thing", "options"),
    [
        (definition(NOW - 6 * DAY), {}),
        (definition(None), {}),  # of an age that nobody knows
        (definition(), {"used": ("unit:1",)}),  # a row of late names it
        (definition(), {"used": None}),  # the ledger was not asked
        (definition(), {"unread": True}),
        (definition(), {"sweep": None}),
        (definition(tags={"vmrunner:installation": "another"}), {}),
    ],
)
def test_one_that_may_be_used_lives(thing: Resource, options: dict[str, Any]) -> None:
    assert ends(thing, **options) == []


def test_of_another_generation_it_ends_too() -> None:
    """A ledger that began anew never names what the former one made."""
    assert GENERATION != "former"
    assert ends(definition(tags={"vmrunner:generation": "former"})) != []


def test_no_time_of_a_vm_ends_one() -> None:
    """Neither the longest life of a VM, nor its deadline, nor the audit."""
    thing = definition(NOW - 6 * DAY)
    assert soon(NOW, thing, None, Limits(), MINE) is None
    assert audit(NOW, [], [page(thing, kind=Kind.DEFINITION)], Limits(), MINE) == []


def test_a_secret_goes_after_its_vm() -> None:
    secret = vm(id="s-1", kind=Kind.SECRET, parent=vm().ref)
    alive = [page(vm()), page(secret, kind=Kind.SECRET)]
    gone = [page(), page(secret, kind=Kind.SECRET)]
    done = row(state=I.GONE)
    swept = {"sweep": SweepId(id="s-2", begun=NOW)}
    assert ("s-1", Death.LEFTOVER) not in killed(reaped([done], alive, **swept))
    assert killed(reaped([done], gone, **swept)) == [("s-1", Death.LEFTOVER)]
    assert killed(reaped([row()], alive, **swept)) == []
