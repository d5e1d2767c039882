"""A filter for lists of builds, the same for every ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vmrunner.model.states import BuildState, Result


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildChoice:
    """A filter for a list of builds. A build must match every field that is not the default.

    `active`: not finished (True), or finished (False). `name`: the exact name, or with `*` at its
    end a beginning. `actors`: submitted by one of these, each an actor or the name of a token.
    `since` (inclusive) and `until` (exclusive): epoch seconds, compared with the end of a finished
    build and the submission of others. `own`: visible with this label filter. `tenant`: submitted
    by this one. `sandbox`: a sandbox (True), or none (False). `before`: its id sorts before this
    one. `above`: its id sorts after this one; the nearest come first."""

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
