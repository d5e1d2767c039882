"""What a pass condemned is held against its row once more before it dies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.engine_parts import EngineParts
from vmrunner.core.reap_plan import Deletion
from vmrunner.model import Death, Instance, Kind, Ref
from vmrunner.reaper.reap_pass import still_condemned


def condemned(row: Instance, reason: Death) -> Deletion:
    assert row.ref is not None
    return Deletion(
        ref=row.ref, reason=reason, instance=row.id, expires_at=row.end, created_at=row.created_at
    )


@pytest.fixture
def row(parts: EngineParts) -> Instance:
    """The row of a VM that is there, and recorded."""
    _, instance = parts.booting()
    if instance.ref is None:
        ref = next(iter(parts.cloud.machines))
        parts.ledger.instances.record([(instance.id, instance.epoch, ref)], parts.clock())
    return parts.ledger.instances.get(instance.id)


def test_a_duplicate_is_compared_with_its_row(parts: EngineParts, row: Instance) -> None:
    """The sweep was made before its reference was recorded: the twin is the recorded one."""
    kill = condemned(row, Death.DUPLICATE)
    assert not still_condemned(parts.context, parts.provider, kill)
    assert row.ref is not None
    twin: Ref = row.ref._replace(id="another")
    assert still_condemned(parts.context, parts.provider, replace(kill, ref=twin))
    assert not still_condemned(
        parts.context, parts.provider, replace(kill, ref=twin, instance="vm-unknown")
    )


def test_a_leftover_is_compared_with_its_row(parts: EngineParts, row: Instance) -> None:
    kill = condemned(row, Death.LEFTOVER)
    assert not still_condemned(parts.context, parts.provider, kill)
    dying = parts.mark_deleting(row)
    parts.ledger.instances.close(row.id, epoch=dying.epoch, death=Death.DONE, now=parts.clock())
    assert still_condemned(parts.context, parts.provider, kill)


def test_an_orphan_that_has_a_row_lives(parts: EngineParts, row: Instance) -> None:
    kill = condemned(row, Death.ORPHAN)
    assert not still_condemned(parts.context, parts.provider, kill)
    other = kill.ref._replace(id="another")
    unknown = replace(kill, instance="vm-unknown")
    assert not still_condemned(parts.context, parts.provider, unknown), "its row recorded it"
    assert still_condemned(parts.context, parts.provider, replace(unknown, ref=other))


def test_an_orphan_without_a_name_is_compared_by_its_reference(
    parts: EngineParts, row: Instance
) -> None:
    """The create that made it may have been answered since the ledger was read."""
    kill = replace(condemned(row, Death.ORPHAN), instance=None)
    assert not still_condemned(parts.context, parts.provider, kill)
    other = replace(kill, ref=kill.ref._replace(id="another"))
    assert still_condemned(parts.context, parts.provider, other)


def test_a_definition_that_is_named_again_lives(parts: EngineParts, row: Instance) -> None:
    kill = condemned(row, Death.LEFTOVER)
    kill = replace(kill, ref=Ref(kill.ref.scope, Kind.DEFINITION, row.offer.image), instance=None)
    assert not still_condemned(parts.context, parts.provider, kill)
    other = replace(kill, ref=kill.ref._replace(id="old:1"))
    assert still_condemned(parts.context, parts.provider, other)
