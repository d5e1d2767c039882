"""A listing as pages. A failure makes it incomplete, and says so; nothing is cut silently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from vmrunner.errors import Throttled, Uncertain
from vmrunner.model import Kind, Page, Resource, Scope
from vmrunner.providers.common.call_failed import CallFailed

T = TypeVar("T")

#: One page: the token of it (None: the first) → its items, and the token of the next.
Read = Callable[[str | None], tuple[Sequence[Any], str | None]]


def pages(
    scope: Scope,
    kind: Kind,
    read: Read,
    understand: Callable[[Any], Resource | None],
    now: Callable[[], float],
) -> Iterator[Page]:
    """Yield all that `read` shows. `understand` makes a resource of an item; None: it is none that
    counts. One item that cannot be understood takes nothing away but completeness."""
    token: str | None = None
    while True:
        try:
            items, token = patiently(partial(read, token))
        except CallFailed as failed:
            yield Page(scope=scope, kind=kind, error=str(failed), time=now())
            return
        found, error = [], None
        for item in items:
            try:
                resource = understand(item)
            except (AttributeError, KeyError, TypeError, ValueError) as trouble:
                error = f"an item makes no sense: {type(trouble).__name__}: {trouble}"
            else:
                found += [resource] if resource is not None else []
        yield Page(
            scope=scope,
            kind=kind,
            resources=tuple(found),
            error=error,
            time=now(),
            more=token is not None,
        )
        if token is None:
            return


def patiently(ask: Callable[[], T]) -> T:
    """Ask twice, where the first time says nothing about the second. Raises `CallFailed`."""
    try:
        return ask()
    except CallFailed as failed:
        if not isinstance(failed.error, (Throttled, Uncertain)):
            raise
        return ask()
