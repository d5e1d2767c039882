"""Access of a job file to this machine. It is unread code, as the checkout is that it
lies in: the files beside it are its own; a variable, another file and what only this user can fetch
need the user's permission."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import ConfigError
from vmrunner.services import sources

if TYPE_CHECKING:
    from vmrunner.config.jobfile import SelectedJob

FILES: Final = "--allow-host-files"
SECRET: Final = "--allow-secret"  # noqa: S105 - an option's name


@dataclass(frozen=True, kw_only=True, slots=True)
class HostAccess:
    """The user's permissions: variables by name, and files or git repositories of his."""

    secrets: frozenset[str] = frozenset()
    host_files: bool = False


class HostAccessCheck:
    """One job's requests for things of this machine, each held against what was allowed."""

    def __init__(self, chosen: SelectedJob, allowed: HostAccess) -> None:
        self._chosen = chosen
        self._allowed = allowed
        self._root = chosen.directory.resolve()
        self.uses: list[str] = []

    def source(self, source: str) -> str:
        """The source that a job names, as a path that holds from anywhere."""
        sources.refuse_url(source)
        if source.startswith(sources.GIT):
            self._foreign("source", sources.shown(source), "git fetches it as you")
            return source
        place = self._chosen.directory / Path(source).expanduser()
        if not self._below(place):
            self._foreign("source", source, "it is outside the job file's directory")
        return str(place)

    def secret(self, secret: str) -> str:
        """A secret that a job names: `NAME`, or `NAME=@FILE` with a path that holds from
        anywhere."""
        name, equals, rest = secret.partition("=")
        if not equals:
            if name not in self._allowed.secrets:
                raise ConfigError(
                    f"secrets: {name!r} is a variable of yours that a job file asks for",
                    hint=f"--secret {name} or {SECRET} {name} gives it",
                )
            self.uses.append(f"the variable {name}")
            return secret
        if not rest.startswith("@"):
            return secret
        path = self._chosen.directory / Path(rest[1:]).expanduser()
        if not self._below(path):
            self._foreign("secrets", secret, "it is outside the job file's directory")
        elif path.exists() and not path.is_file():
            raise ConfigError(f"secrets: {secret!r} is not a file", hint="name one")
        return f"{name}=@{path}"

    def _below(self, path: Path) -> bool:
        """True if the path is below the job file's directory, with every link followed."""
        return path.resolve().is_relative_to(self._root)

    def _foreign(self, key: str, value: str, why: str) -> None:
        if not self._allowed.host_files:
            raise ConfigError(f"{key}: {value!r}: {why}", hint=f"{FILES} allows it")
        self.uses.append(f"the {'source' if key == 'source' else 'file'} {value}")
