"""The knowledge of a right, and for how long it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmrunner.errors import CredentialsRefused

#: So long an answer holds, in seconds: rights change seldom, and a denial is mended in a minute.
GRANTED: Final = 3600.0
REFUSED: Final = 30.0


@dataclass(frozen=True, slots=True)
class Right:
    """A right, as far as it is known. `may` None: it cannot be told, for the reason in `why`.
    `fix`: how to get it, where it is not merely to be given."""

    may: bool | None
    why: str = ""
    fix: str = ""

    def demand(self, name: str, verb: str, fix: str) -> None:
        """Raises `CredentialsRefused` when it is known that the provider of this name lacks it."""
        if self.may is False:
            raise CredentialsRefused(
                f"{name} may not {verb} what it would launch: {self.why}",
                hint=f"{self.fix or fix}; nothing is launched before",
            )
