"""Failures of requests to GitHub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vmrunner.errors import VmrunnerError


class GithubError(VmrunnerError):
    """GitHub refused a request. `status` is HTTP's, `kind` the service's own name for it."""

    def __init__(self, message: str, *, status: int = 0, kind: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.kind = kind


class GithubAway(GithubError):
    """GitHub did not answer, failed, or wants to be asked later: after `wait` seconds, if it says
    so."""

    def __init__(self, message: str, *, status: int = 0, wait: float | None = None) -> None:
        super().__init__(message, status=status)
        self.wait = wait


@contextlib.contextmanager
def understood(what: str) -> Iterator[None]:
    """Raise GithubAway where an answer, which is read within, is not what it should be. Nothing of
    it is told: it may be a token."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise GithubAway(f"GitHub's answer is not {what}: {type(error).__name__}") from None
