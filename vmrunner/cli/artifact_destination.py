"""The destination of artifacts: looked at before a build starts, written at its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.cli import output
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.lib import dirfd, units

if TYPE_CHECKING:
    from vmrunner.services.protocols import BuildArtifacts


PROGRESS: Final = 5.0  # seconds between two words about a copy


def check(result_file: Path | None, artifacts_to: Path | None) -> None:
    """Raises ConfigError for a place where nothing could be written. Leaves none behind."""
    if result_file is not None:
        _check_file(result_file)
    if artifacts_to is not None:
        _check_directory(artifacts_to)


def _check_file(file: Path) -> None:
    if str(file) == "-":
        raise ConfigError("result-file: '-' is no file", hint="-o json prints it on stdout")
    try:
        if not dirfd.is_replaceable(file):
            raise ConfigError(f"result-file: {str(file)!r} is no file", hint="name a file")
        with dirfd.opened(file.parent, make=False) as parent:
            dirfd.probe(parent, os.fsencode(file.name))
    except OSError as error:
        raise ConfigError(
            f"result-file: {str(file)!r} cannot be written: {error.strerror}",
            hint="name a file in a directory of yours",
        ) from error


def _check_directory(to: Path) -> None:
    made: list[Path] = []
    try:
        made = [place for place in (to, *to.parents) if not os.path.lexists(place)]
        with dirfd.opened(to, make=True) as root:
            dirfd.probe(root, b"x")
    except OSError as error:
        raise ConfigError(
            f"artifacts-to: {str(to)!r} cannot be written: {error.strerror}",
            hint="name a directory of yours",
        ) from error
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def write(file: Path, text: str) -> bool:
    """The result, whole or not at all; whether it was written."""
    try:
        with (
            dirfd.opened(file.parent, make=False) as parent,
            dirfd.replacing(parent, os.fsencode(file.name), 0o666) as draft,
        ):
            draft.write(text.encode() + b"\n")
    except OSError as error:
        output.say(f"error: result-file: {file} cannot be written: {error.strerror}")
        return False
    return True


def copy(artifacts: BuildArtifacts, to: Path) -> bool:
    """Copy artifacts; true if all came. That some cannot be copied is told, and hides nothing of
    the build's end; but a caller without them may not take it for a success."""
    try:
        copied = artifacts.download(to, on_bytes=CopyProgress.of_all(artifacts).add)
    except VmrunnerError as error:
        output.say(f"error: {error}")
        return False
    output.say(came(copied, to))
    return True


class CopyProgress:
    """Words about a copy that takes long: now and then, how much has come, and with the `total` how
    long the rest will take at that pace."""

    def __init__(
        self, total: int | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._clock = clock
        self._size = 0
        self._began = self._printed_at = clock()

    @classmethod
    def of_all(cls, artifacts: BuildArtifacts) -> CopyProgress:
        """Words about the copy of all of them."""
        return cls(sum(artifact.size for artifact in artifacts.ls()))

    def add(self, size: int) -> None:
        """Count so many bytes more."""
        self._size += size
        if (now := self._clock()) - self._printed_at >= PROGRESS:
            self._printed_at = now
            output.say(f"artifacts: {units.amount(self._size)}{self._rest(now)}")

    def _rest(self, now: float) -> str:
        if self._total is None or self._size > self._total:
            return " are copied so far"
        left = (now - self._began) * (self._total - self._size) / self._size
        return f" of {units.amount(self._total)} are copied, about {units.span(left)} left"


def came(copied: Sequence[Path], to: Path) -> str:
    """Number and directory of the files that came, for people."""
    if not copied:
        return "no artifact came back"
    where = to if to.parts else Path.cwd()
    return f"{len(copied)} artifact{'s' if copied[1:] else ''} in {where}"
