"""The right to kill: who is asked about it, and how often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.gce.permissions import ACTION, GcePermissions

VM = Ref(Scope("gce", "acme-ci", "europe-west1-b"), Kind.INSTANCE, "vm-1")


def test_of_a_burst_of_newborns_one_is_asked() -> None:
    calls_made = []

    def calls(*_: Any, **values: Any) -> Any:
        calls_made.append(values["resource"])
        permissions.born(VM._replace(id="vm-2"))  # while the first is being asked
        return SimpleNamespace(permissions=[ACTION])

    permissions = GcePermissions("google", calls)  # type: ignore[arg-type]
    permissions.born(VM)
    permissions.born(VM._replace(id="vm-3"))
    assert calls_made == ["vm-1"]
