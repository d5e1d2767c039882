"""Schedules of many VMs go side by side: each is a call, and no cloud is near."""

from __future__ import annotations

from threading import Barrier
from typing import Any

from vmrunner.errors import BadOrder
from vmrunner.model import Fate, Kind, Ref, Scope
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2.delete import AT_ONCE, Ec2Deleter

SCOPE = Scope("ec2", "123456789012", "eu-central-1")


def test_as_many_schedules_are_removed_at_once_as_may() -> None:
    together = Barrier(AT_ONCE, timeout=30.0)  # breaks where they come one by one

    def client(region: str, api: Any, **params: Any) -> Any:
        together.wait()
        if params["Name"] == "s-3":
            raise CallFailed("ResourceNotFoundException", BadOrder("it is not there"))
        if params["Name"] == "s-4":
            raise CallFailed("ValidationException", BadOrder("no"))

    refs = [Ref(SCOPE, Kind.SCHEDULE, f"group/s-{n}") for n in range(2 * AT_ONCE)]
    deleter = Ec2Deleter(client, "eu-central-1", lambda: 0.0)  # type: ignore[arg-type]
    fates = [outcome.fate for outcome in deleter.delete(refs, force=False).values()]
    expected = [Fate.ACCEPTED] * len(refs)
    expected[3], expected[4] = Fate.MISSING, Fate.FAILED
    assert fates == expected
