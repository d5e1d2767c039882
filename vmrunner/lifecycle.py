"""Which state may follow which, and what presence and absence mean. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner.model import BuildState, InstanceState

_B = BuildState
_I = InstanceState

INSTANCE_NEXT: Final[Mapping[InstanceState, frozenset[InstanceState]]] = {
    _I.REQUESTED: frozenset({_I.BOOTING, _I.DELETING, _I.GONE}),
    _I.BOOTING: frozenset({_I.READY, _I.DELETING, _I.GONE}),
    _I.READY: frozenset({_I.BUSY, _I.DELETING, _I.GONE}),
    _I.BUSY: frozenset({_I.HELD, _I.DELETING, _I.GONE}),
    _I.HELD: frozenset({_I.DELETING, _I.GONE}),
    _I.DELETING: frozenset({_I.GONE}),
    _I.GONE: frozenset(),
}

# A lost attempt goes back to `queued` for its retry: a build's states may repeat, an
# instance's never do.
BUILD_NEXT: Final[Mapping[BuildState, frozenset[BuildState]]] = {
    _B.QUEUED: frozenset({_B.PROVISIONING, _B.FINISHED}),
    _B.PROVISIONING: frozenset({_B.BOOTING, _B.QUEUED, _B.FINISHED}),
    _B.BOOTING: frozenset({_B.CONNECTING, _B.QUEUED, _B.FINISHED}),
    _B.CONNECTING: frozenset({_B.PREPARING, _B.QUEUED, _B.FINISHED}),
    _B.PREPARING: frozenset({_B.RUNNING, _B.QUEUED, _B.FINISHED}),
    _B.RUNNING: frozenset({_B.COLLECTING, _B.QUEUED, _B.FINISHED}),
    _B.COLLECTING: frozenset({_B.HELD, _B.QUEUED, _B.FINISHED}),
    _B.HELD: frozenset({_B.FINISHED}),
    _B.FINISHED: frozenset(),
}


def may_follow(now: InstanceState, then: InstanceState) -> bool:
    """Is `then` a legal next state of an instance?"""
    return then in INSTANCE_NEXT[now]


def build_may_follow(now: BuildState, then: BuildState) -> bool:
    """Is `then` a legal next state of a build?"""
    return then in BUILD_NEXT[now]
