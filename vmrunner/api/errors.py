"""Errors for builds that did not succeed, raised with `check=True`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from vmrunner.errors import VmrunnerError

if TYPE_CHECKING:
    from vmrunner.api.build import Build


class BuildError(VmrunnerError):
    """A build that did not end in success. `build`: its snapshot."""

    def __init__(self, message: str, *, build: Build, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.build = build

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[str]]:
        """A pool of processes breaks at an error that cannot be made anew."""
        made = functools.partial(type(self), build=self.build, hint=self.hint)
        return made, (str(self.args[0]),)


class BuildFailed(BuildError):
    """A build whose own steps failed."""

    @property
    def exit_code(self) -> int | None:
        """Exit code of the steps, 0 to 255; None if they were killed without one."""
        return self.build.exit_code


class BuildTimeout(BuildError):
    """A build that ran out of time: a step's, its own, or its VM's deadline."""


class BuildCancelled(BuildError):
    """A build that a user cancelled, or whose owner is gone."""


class BuildLost(BuildError):
    """A build that vmrunner or the cloud lost: no capacity, image, boot, connection or VM."""
