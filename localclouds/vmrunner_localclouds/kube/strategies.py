"""Rules of a kind, beside those that all objects have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner_localclouds.kube.api_error import Cause, Json

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube


class Strategy:
    """The rules of a kind that has none of its own."""

    #: A DELETE without a policy leaves the dependents (registry/batch/job/strategy.go).
    orphans_by_default = False
    #: A DELETE is answered with the object even when it is gone at once.
    returns_deleted = False

    def fill(self, cloud: LocalKube, shown: Json) -> None:
        """Fill in defaults of a new object, in place."""

    def problems(self, _: Json) -> list[Cause]:
        """All that is wrong with an object."""
        return []

    def update_problems(self, _: Json, __: Json) -> list[Cause]:
        """All that may not be changed."""
        return []

    def admit(self, cloud: LocalKube, shown: Json) -> None:
        """Raises `KubeRefusal` for what admission does not let in."""

    def grace(self, _: Json, __: int | None) -> int | None:
        """Seconds until a delete takes effect; None: this kind is deleted at once."""
        return None


def defaults(target: Json, values: Json) -> None:
    """Set what is missing or null."""
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value
