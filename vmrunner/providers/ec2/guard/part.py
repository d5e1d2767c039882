"""A part of the guard: how it should be, how it is, and the calls between the two."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Protocol

from vmrunner.providers.ec2.client import Answer, Ec2Api


def api(service: str, method: str) -> Ec2Api[Any]:
    """A call that counts against no limit of EC2's."""
    return Ec2Api(service, method, "elsewhere")


class GuardElement(Protocol):
    """One part. `wanted` and `look` give the same keys; None: it is not there."""

    name: str

    @property
    def id(self) -> str: ...
    def wanted(self) -> Answer: ...
    def look(self) -> Answer | None: ...
    def make(self) -> None: ...
    def mend(self, keys: Collection[str]) -> None: ...
    def remove(self) -> None: ...


def differing(element: GuardElement, found: Answer) -> list[str]:
    """The keys in which it is not as it should be."""
    return [key for key, value in element.wanted().items() if found.get(key) != value]


def text(document: Answer) -> str:
    """JSON, the same for the same document."""
    return json.dumps(document, sort_keys=True)
