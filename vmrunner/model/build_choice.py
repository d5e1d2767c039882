"""A choice among builds: what a list is asked for, at whichever ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vmrunner.model.states import BuildState, Result


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildChoice:
    """The builds that a list is of: those for which all holds that is not the default.

    `active`: not finished (True), or finished (False). `name`: that, or with `*` at its end what
    begins like it. `actors`: submitted by one of them, each an actor or the name of a token.
    `since` and `until` are epoch seconds: a build that finished did so at or after `since` and
    before `until`; another was submitted then. `own`: seen by the principal with this label filter.
    `tenant`: submitted by that one. `sandbox`: it is one (True), or none (False). `before`: their
    ids sort before that; `above`: after that, and those next to it come first."""

    active: bool | None = None
    states: Collection[BuildState] = ()
    results: Collection[Result] = ()
    name: str | None = None
    actors: Collection[str] = ()
    provider: str | None = None
    since: float | None = None
    until: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    tenant: str | None = None
    sandbox: bool | None = None
    before: str | None = None
    above: str | None = None
