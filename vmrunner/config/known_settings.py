"""Settings that were valid before: to validate them takes longer than most commands, which ask for
a few values of them.

That a configuration was valid is remembered by a file in the user's cache, whose name is a hash of
every value that the configuration says, and of the code that checks these. It holds the limits and
the defaults, by which a request is checked, and of providers what a project's file may set: nothing
secret. All other values are validated nevertheless, once one is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from vmrunner.config import network_policy, provider_names, remembered
from vmrunner.lib import ids
from vmrunner.model import Network

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.providers.settings import ProviderSettings

_PACKAGE: Final = Path(__file__).parents[1]
#: The packages whose code decides what is valid.
_CODE: Final = ("config", "core", "lib", "model")
_LIMITS: Final = (
    "max_ttl", "max_instances", "log_bytes", "artifact_bytes", "source_bytes", "privileged",
    "docker", "images",
)  # fmt: skip
_DEFAULTS: Final = ("container", "container_runtime", "timeout")
_PLAIN: Final = (str, int, float, bool, type(None))


def settings(values: Mapping[str, Any], validate: Callable[[], Settings]) -> Settings:
    """The settings of these values, validated as far as that is not known. Raises what `validate`
    raises."""
    name = _name(values)
    kept = None if name is None else _remembered(name)
    if kept is not None:
        return cast("Settings", KnownSettings(values, kept, validate))
    valid = validate()
    if name is not None:
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
        return KnownTable(_read(self._kept["limits"]), lambda: self._valid.limits)

    @cached_property
    def defaults(self) -> Any:
        return KnownTable(_read(self._kept["defaults"]), lambda: self._valid.defaults)

    @property
    def secret_key(self) -> Any:
        key = self._values.get("secret_key")
        return None if key is None else KnownSecret(key)

    @property
    def installation(self) -> str | None:
        name = self._values.get("installation")
        return None if name is None else ids.canonical_uuid(name)

    @property
    def default_provider(self) -> str | None:
        return self._values.get("default_provider")

    def provider(self, wanted: str | None = None) -> str:
        return provider_names.chosen(wanted, self.default_provider, self.providers)

    def provider_options(self, name: str) -> dict[str, Any]:
        options = self._kept["providers"][name]["options"]
        return self._provider(name).options() if options is None else dict(options)

    @cached_property
    def providers(self) -> dict[str, Any]:
        return {
            name: KnownTable(kept["table"], partial(self._provider, name))
            for name, kept in self._kept["providers"].items()
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


def _remembered(name: str) -> dict[str, Any] | None:
    """Content of the file of this name; None: it is not there, or is not whole."""
    kept = remembered.read(name)
    whole = isinstance(kept, dict) and kept.keys() == {"limits", "defaults", "providers"}
    return kept if whole else None


def _read(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table that was written down."""
    return {**table, "network": network_policy.policy(table["network"], "network")}


def _written(table: Any, fields: Iterable[str]) -> dict[str, Any]:
    """These values of a table, as JSON has them."""
    network = table.network
    shown = network.value if isinstance(network, Network) else {"allow": list(network.allow)}
    return {**{field: getattr(table, field) for field in fields}, "network": shown}


def _provider_written(table: ProviderSettings) -> dict[str, Any]:
    """The part of a provider's table that is not secret, and its options where none may be."""
    plain = {name: getattr(table, name) for name in sorted(table.harmless)}
    plain = {name: value for name, value in plain.items() if type(value) in _PLAIN}
    options = table.options()
    defaults = {name: field.default for name, field in type(table).model_fields.items()}
    whole = all(
        type(value) in _PLAIN and (name in plain or value == defaults[name])
        for name, value in options.items()
    )
    return {
        "table": {**plain, "boots_local_images": table.boots_local_images},
        "options": options if whole else None,
    }


def _remember(name: str, valid: Settings) -> None:
    kept = {
        "limits": _written(valid.limits, _LIMITS),
        "defaults": _written(valid.defaults, _DEFAULTS),
        "providers": {name: _provider_written(table) for name, table in valid.providers.items()},
    }
    remembered.write(name, kept)
