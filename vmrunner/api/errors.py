"""Ends of a build other than success: what `check=True` raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner.errors import VmrunnerError

if TYPE_CHECKING:
    from vmrunner.api.build import Build


class BuildError(VmrunnerError):
    """A build ended otherwise than in success."""

    def __init__(self, message: str, *, build: Build, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.build = build


class BuildFailed(BuildError):
    """The build's own steps failed; `exit_code` is theirs."""

    @property
    def exit_code(self) -> int | None:
        return self.build.exit_code


class BuildTimeout(BuildError):
    """A step, the build or the VM's deadline ran out."""


class BuildCancelled(BuildError):
    """A user cancelled it, or its owner is gone."""


class BuildLost(BuildError):
    """An end that was ours to lose: capacity, image, boot, connection, VM."""
