"""A cloud in memory, for your tests and ours: virtual clock, lost answers, stubborn machines.

    clock = Clock()
    cloud = Cloud(clock)
    provider = FakeProvider("fake", cloud)
    cloud.fail("create", Fault.LOST_RESPONSE)       # the next create happens, its answer is lost
    cloud.unreachable.add(SCOPE)                    # a zone is down: after `cloud.timeout` seconds
    clock.advance(60)                               # time passes only when you say so

`Cloud` is what exists; a `FakeProvider` is one process's view of it, through the port like any
driver. Several providers, also with other scopes, may share one cloud. What a test wants to know
of the truth it reads in `cloud.machines`, `cloud.things()` and `cloud.calls`.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from vmrunner.providers.port import Driver

if TYPE_CHECKING:
    from vmrunner.providers.fake.cloud import Clock, Cloud, FakeMachine
    from vmrunner.providers.fake.faults import Call, Fault, Plan
    from vmrunner.providers.fake.provider import SCOPE, FakeProvider

__all__ = [
    "SCOPE",
    "Call",
    "Clock",
    "Cloud",
    "FakeMachine",
    "FakeProvider",
    "Fault",
    "Plan",
    "open",
]

_HOME: Final = {
    "SCOPE": "provider",
    "FakeProvider": "provider",
    **dict.fromkeys(("Clock", "Cloud", "FakeMachine"), "cloud"),
    **dict.fromkeys(("Call", "Fault", "Plan"), "faults"),
}


def __getattr__(name: str) -> Any:
    """Each name is loaded when it is first used: every command asks this package for `DRIVER`."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def open(name: str, **options: Any) -> FakeProvider:  # noqa: A001 - as `Driver` calls it
    """A provider of kind `fake` in real time over this process's cloud, which is gone when the
    process is: for a try-out of the command line, not for builds."""
    from vmrunner.providers.fake.provider import FakeProvider

    return FakeProvider(name, _cloud(), **options)


@cache
def _cloud() -> Cloud:
    """All providers of a process have one, as they have one scope: a build that goes from one
    engine to another one's must find its VM there."""
    from vmrunner.providers.fake.cloud import Cloud
    from vmrunner.providers.fake.provider import WallClock

    return Cloud(WallClock())


DRIVER = Driver(
    kind="fake",
    settings="vmrunner.providers.fake.settings:FakeSettings",
    open=open,
    parks=True,
    own_host=True,
    host_bound=True,
)
