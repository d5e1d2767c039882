"""Where the configuration comes from, weakest first: defaults, the user's XDG file, the project's
`vmrunner.toml` or `[tool.vmrunner]` (or, alone, the file that `VMRUNNER_CONFIG` names),
`VMRUNNER_*`, flags. Every value remembers its origin."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import platformdirs
from pydantic import ValidationError

from vmrunner import units
from vmrunner.config import MASK, SQLITE, Settings, database_url, shown_url
from vmrunner.errors import ConfigError
from vmrunner.explain import Where, explained

PREFIX: Final = "VMRUNNER_"
#: Variables that are ours, but no settings. Builds have the third and fourth, an image's own
#: provisioning the last.
NOT_SETTINGS: Final = frozenset(
    {
        "VMRUNNER_CONFIG",
        "VMRUNNER_DEBUG",
        "VMRUNNER_BUILD",
        "VMRUNNER_ATTEMPT",
        "VMRUNNER_PLATFORM",
    }
)
_SHORT: Final = {"DATABASE_URL": ("database", "url")}
DEFAULT_PROVIDERS: Final[Mapping[str, Any]] = {"local": {"kind": "qemu"}}

Path_ = tuple[str, ...]


class Layer(NamedTuple):
    """One source of values: a nested table, and what to call it."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """Settings, with where each value that is not a default came from."""

    settings: Settings
    origins: Mapping[Path_, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """(key, value, origin) of every value, secrets masked, for `config show`."""
        shown = []
        for path, value in _leaves(self.settings.model_dump(mode="json")):
            text = json.dumps(units.exact(value) if isinstance(value, float) else value)
            if value is not None and path == ("secret_key",):
                text = json.dumps(MASK)
            elif path == ("database", "url"):
                text = json.dumps(shown_url(database_url(self.settings)))
            shown.append((".".join(path), text, self.origins.get(path, "default")))
        return shown


def load(
    *,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """The configuration as it holds in directory `start` (default: here). `flags` is a nested
    table of what the command line said. Raises `ConfigError` with file, key and fix."""
    environ = os.environ if environ is None else environ
    layers = _files(environ, start or Path.cwd())
    if not any(layer.values.get("providers") for layer in layers):
        layers.insert(0, Layer("default", {"providers": DEFAULT_PROVIDERS}))
    layers += _environment(environ)
    if flags:
        layers.append(Layer("flag", flags))
    merged: dict[str, Any] = {}
    origins: dict[Path_, str] = {}
    for layer in layers:
        _merge(merged, layer.values, (), layer.origin, origins)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise explained(
            error, Settings, lambda where: _place(where, origins), hide=_hidden
        ) from None
    if settings.default_provider is not None:
        settings.provider()  # it must be one that is configured
    return Loaded(settings=settings, origins=origins)


def dump(settings: Settings) -> str:
    """The settings as TOML that reads back to the same, without the secret key."""
    values = settings.model_dump(mode="json", exclude_none=True, exclude={"secret_key"})
    values["database"] = {"url": database_url(settings)}
    return "\n".join(_toml(values, ()))


def _toml(table: Mapping[str, Any], at: Path_) -> Iterator[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if at:
        yield f"[{'.'.join(map(_quoted, at))}]"
    for key, value in table.items():
        if key not in tables:
            yield f"{_quoted(key)} = {_quoted(value)}"
    for key, value in tables.items():
        yield from _toml(value, (*at, key))


def _quoted(value: Any) -> str:
    """JSON's text, numbers and lists are TOML's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# --- layers --------------------------------------------------------------------------------------


def _files(environ: Mapping[str, str], start: Path) -> list[Layer]:
    named = environ.get("VMRUNNER_CONFIG")
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            raise ConfigError(
                f"VMRUNNER_CONFIG: no file {named!r}", hint="correct it, or unset the variable"
            )
        return [_layer(file)]
    layers = []
    user = platformdirs.user_config_path("vmrunner") / "config.toml"
    if user.is_file():
        layers.append(_layer(user))
    project = _project(start)
    if project is not None:
        layers.append(project)
    return layers


def _project(start: Path) -> Layer | None:
    for directory in (start, *start.parents):
        file = directory / "vmrunner.toml"
        if file.is_file():
            return _layer(file)
        pyproject = directory / "pyproject.toml"
        if pyproject.is_file():
            table = _read(pyproject).get("tool", {}).get("vmrunner")
            if isinstance(table, dict):
                return _anchored(Layer(f"{pyproject} [tool.vmrunner]", table), directory)
    return None


def _layer(file: Path) -> Layer:
    return _anchored(Layer(str(file), _read(file)), file.parent)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


def _environment(environ: Mapping[str, str]) -> Iterator[Layer]:
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or not environ[name]:
            continue
        rest = name.removeprefix(PREFIX)
        path = _SHORT.get(rest) or tuple(rest.lower().split("__"))
        value: Any = environ[name]
        if value[0] in "[{":
            try:
                value = json.loads(value)
            except ValueError as error:
                raise ConfigError(f"{name}: not valid JSON: {error}") from None
        for key in reversed(path):
            value = {key: value}
        yield _anchored(Layer(name, value), Path.cwd())


def _anchored(layer: Layer, directory: Path) -> Layer:
    """A relative path in a SQLite URL means: beside the file that says so."""
    database = layer.values.get("database")
    if not isinstance(database, dict):
        return layer
    url = database.get("url")
    if not isinstance(url, str) or not url.startswith(SQLITE) or url == SQLITE:
        return layer
    file = directory / Path(url.removeprefix(SQLITE)).expanduser()
    absolute = f"{SQLITE}{Path(os.path.normpath(file))}"
    return Layer(layer.origin, {**layer.values, "database": {**database, "url": absolute}})


def _merge(
    into: dict[str, Any],
    values: Mapping[str, Any],
    at: Path_,
    origin: str,
    origins: dict[Path_, str],
) -> None:
    for key, value in values.items():
        path = (*at, key)
        if isinstance(value, Mapping):
            old = into.get(key)
            other_kind = (
                at == ("providers",)
                and isinstance(old, dict)
                and (value.get("kind", old.get("kind")) != old.get("kind"))
            )
            if not isinstance(old, dict) or other_kind:
                into[key] = {}
                for known in [known for known in origins if known[: len(path)] == path]:
                    del origins[known]
            origins.setdefault(path, origin)
            _merge(into[key], value, path, origin, origins)
        else:
            into[key] = value
            origins[path] = origin


def _leaves(table: Mapping[str, Any], at: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*at, key))
        else:
            yield (*at, key), value


def _place(where: Where, origins: Mapping[Path_, str]) -> str:
    path = tuple(str(part) for part in where)
    cuts = (path[:cut] for cut in range(len(path), 0, -1))
    origin = next((origins[cut] for cut in cuts if cut in origins), "flag")
    return "" if origin in ("flag", "default") else f"{origin}: "


def _hidden(name: str) -> bool:
    return "secret" in name or name == "database.url"


def schema() -> dict[str, Any]:
    """The JSON Schema of `vmrunner.toml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(),
        "title": "vmrunner.toml",
    }
