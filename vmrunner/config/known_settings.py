"""Settings that were valid before: to validate them takes longer than most commands, which ask for
a few values of them.

That a configuration was valid is remembered by a file in the user's cache, whose name is a hash of
every value that the configuration says, and of the code that checks these. It holds the limits,
which all that waits is told by, and nothing secret. All but a few values are validated
nevertheless, once one is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from vmrunner.config.paths import cache_path
from vmrunner.lib import ids, private_dirs

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings

_PACKAGE: Final = Path(__file__).parents[1]
#: The packages whose code decides what is valid.
_CODE: Final = ("config", "core", "lib", "model")
_MOST: Final = 100  # configurations that are remembered
_LIMITS: Final = ("max_ttl", "max_instances", "log_bytes", "artifact_bytes", "source_bytes")


def settings(values: Mapping[str, Any], validate: Callable[[], Settings]) -> Settings:
    """The settings of these values, validated as far as that is not known. Raises what `validate`
    raises."""
    name = _name(values)
    kept = None if name is None else _remembered(name)
    if kept is not None:
        return cast("Settings", KnownSettings(values, kept, validate))
    valid = validate()
    if name is not None:
        with contextlib.suppress(OSError):
            _remember(name, valid)
    return valid


class KnownSettings:
    """Settings of values that were valid before."""

    def __init__(
        self, values: Mapping[str, Any], kept: Mapping[str, Any], validate: Callable[[], Settings]
    ) -> None:
        """`kept`: what was written down when they were validated."""
        self._values, self._kept, self._validate = values, kept, validate

    @cached_property
    def _valid(self) -> Settings:
        return self._validate()

    @cached_property
    def database(self) -> Any:
        table = {"url": self._values.get("database", {}).get("url", "")}
        return KnownTable(table, lambda: self._valid.database)

    @cached_property
    def limits(self) -> Any:
        return KnownTable(self._kept["limits"], lambda: self._valid.limits)

    @property
    def secret_key(self) -> Any:
        key = self._values.get("secret_key")
        return None if key is None else KnownSecret(key)

    @property
    def installation(self) -> str | None:
        name = self._values.get("installation")
        return None if name is None else ids.canonical_uuid(name)

    @cached_property
    def providers(self) -> dict[str, Any]:
        return {
            name: KnownTable(table, partial(self._provider, name))
            for name, table in self._kept["providers"].items()
        }

    def _provider(self, name: str) -> Any:
        return self._valid.providers[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._valid, name)


class KnownTable:
    """A table of which some values are known; for the others it is validated."""

    def __init__(self, values: Mapping[str, Any], valid: Callable[[], Any]) -> None:
        self.__dict__.update(values)
        self._valid = valid

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The table's own class, by which `isinstance` tells what it is a table of."""
        return type(self._valid())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._valid(), name)


class KnownSecret:
    """A secret value, which is not shown."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value


def _name(values: Mapping[str, Any]) -> str | None:
    """The name of the file that remembers these values. None: they are not remembered, since other
    distributions check them too."""
    for provider in values.get("providers", {}).values():
        kind = provider.get("kind") if isinstance(provider, Mapping) else None
        ours = isinstance(kind, str) and kind.isidentifier()
        if not ours or not (_PACKAGE / "providers" / str(kind) / "settings.py").is_file():
            return None
    content = json.dumps([_version(), _code(), values], sort_keys=True, default=repr)
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()


def _version() -> str:
    """The text that says the version."""
    return (_PACKAGE / "__init__.py").read_text()


def _code() -> list[tuple[str, int, int]]:
    """Marks that tell the code that checks from any other."""
    places = [_PACKAGE / name for name in _CODE]
    places += [Path(found.path) for found in os.scandir(_PACKAGE / "providers") if found.is_dir()]
    files = []
    for place in places:
        for found in os.scandir(place):
            if found.name.endswith(".py"):
                state = found.stat()
                files.append((found.path, state.st_mtime_ns, state.st_size))
    return sorted(files)


def _directory() -> Path:
    return cache_path() / "valid"


def _remembered(name: str) -> dict[str, Any] | None:
    """Content of the file of this name; None: there is none that only this user can have made."""
    try:
        above = os.lstat(_directory())
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(_directory() / name, flags)) as file:
            found = os.fstat(file.fileno())
            private = not (found.st_mode & 0o077 or above.st_mode & 0o077)
            mine = found.st_uid == above.st_uid == os.geteuid()
            plain = stat.S_ISREG(found.st_mode) and stat.S_ISDIR(above.st_mode)
            kept: dict[str, Any] = json.load(file) if private and mine and plain else {}
    except (OSError, ValueError):
        return None
    whole = isinstance(kept, dict) and kept.keys() == {"limits", "providers"}
    return kept if whole else None


def _remember(name: str, valid: Settings) -> None:
    kept = {
        "limits": {field: getattr(valid.limits, field) for field in _LIMITS},
        "providers": {
            name: {"kind": table.kind, "max_instances": table.max_instances}
            for name, table in valid.providers.items()
        },
    }
    directory = private_dirs.make(_directory())
    old = sorted(directory.iterdir(), key=lambda file: file.lstat().st_mtime, reverse=True)
    for file in old[_MOST - 1 :]:
        file.unlink(missing_ok=True)
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW
    with os.fdopen(os.open(directory / name, flags, 0o600), "w") as written:
        json.dump(kept, written)
