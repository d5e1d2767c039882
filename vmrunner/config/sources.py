"""Sources of the configuration, weakest first: defaults, the user's XDG file, the project's
`vmrunner.toml` or `[tool.vmrunner]` (or, alone, the file that `VMRUNNER_CONFIG` names),
`VMRUNNER_*`, flags. Every value remembers its origin. What a project's may say is `trust`'s."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import platformdirs

from vmrunner.config import known_settings, trust
from vmrunner.config.paths import database_url, paths
from vmrunner.errors import ConfigError
from vmrunner.lib import database_url as databaseurl
from vmrunner.lib import units
from vmrunner.lib.database_url import MASK, SQLITE

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.config.validation_errors import Where

log = logging.getLogger("vmrunner")

PREFIX: Final = "VMRUNNER_"
#: Variables that are ours, but no settings. Builds have the third and fourth, an image's own
#: provisioning the last.
NOT_SETTINGS: Final = frozenset(
    {
        "VMRUNNER_CONFIG",
        "VMRUNNER_DEBUG",
        "VMRUNNER_LOCAL_FILE_SYSTEM",
        "VMRUNNER_MCP_TOKEN",
        "VMRUNNER_SERVER",
        "VMRUNNER_TOKEN",
        "VMRUNNER_BUILD",
        "VMRUNNER_ATTEMPT",
        "VMRUNNER_PLATFORM",
    }
)
_SHORT: Final = {"DATABASE_URL": ("database", "url")}
DEFAULT_PROVIDERS: Final[Mapping[str, Any]] = {"local": {"kind": "qemu"}}

PROJECT: Final = "vmrunner.toml"
MAX_BYTES: Final = 1 << 20
_DEEPEST: Final = 8

Path_ = tuple[str, ...]


class ConfigLayer(NamedTuple):
    """One source of values: a nested table, and what to call it. `file`: a project's, which its
    user has not trusted."""

    origin: str
    values: Mapping[str, Any]
    file: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSettings:
    """Settings, with where each value that is not a default came from. `held` are the keys that
    a project's file may not say before it is trusted."""

    settings: Settings
    origins: Mapping[Path_, str]
    held: Mapping[Path_, Path] = field(default_factory=dict)

    def rows(self, *, readable: bool = False) -> list[tuple[str, str, str]]:
        """(key, value, origin) of every value that is used, secrets masked, for `config show`.
        `readable`: sizes have units, as a configuration may say them."""
        shown = []
        used = self._used()
        for path, value in _leaves(self.settings.model_dump(mode="json")):
            origin = self.origins.get(path, "default")
            if value is None and path in used:
                value, origin = used[path]
            counts = self._counts(path) if isinstance(value, int | float) else ""
            if isinstance(value, float) and counts == "seconds":
                value = units.exact(value)
            elif readable and isinstance(value, int) and counts == "bytes":
                value = units.exact_size(value)
            text = json.dumps(value)
            if value is not None and path == ("secret_key",):
                text = json.dumps(MASK)
            elif path == ("database", "url"):
                text = json.dumps(databaseurl.shown(database_url(self.settings)))
            if any(path[:cut] in self.held for cut in range(1, len(path) + 1)):
                origin += " (not trusted)"
            shown.append((".".join(path), text, origin))
        return shown

    def _counts(self, path: Path_) -> str:
        """Return the unit of a number, as `section.unit` tells it."""
        from vmrunner.lib import config_section

        table: Any = self.settings
        for part in path[:-1]:
            table = table.get(part) if isinstance(table, Mapping) else getattr(table, part)
        return (
            config_section.unit(table.__class__, path[-1])  # of one that is known it is its own
            if isinstance(table, config_section.Section)
            else ""
        )

    def _used(self) -> dict[Path_, tuple[Any, str]]:
        """Defaults in place of values that are not set: a driver's, and the ledger's
        own."""
        from vmrunner.providers import registry

        used: dict[Path_, tuple[Any, str]] = {}
        with contextlib.suppress(ConfigError):  # several providers, and none is the default
            used["default_provider",] = self.settings.provider(), "default"
        file = paths(self.settings).data / "installation"
        with contextlib.suppress(OSError):
            used["installation",] = file.read_text().strip(), str(file)
        for name, provider in self.settings.providers.items():
            for key, value in registry.defaults(provider.kind).items():
                used["providers", name, key] = value, "default"
        return used

    def trusted(self) -> LoadedSettings:
        """The same. Raises ConfigError when a project says what it may not: to leave that out
        would run the build elsewhere than it says."""
        if not self.held:
            return self
        file = next(iter(self.held.values()))
        keys = ", ".join(sorted(map(".".join, self.held)))
        raise ConfigError(
            f"{file}: {keys}: only a project's file that you trust may say that",
            hint=f"read it, then `vmrunner config trust {file}`; or say it in {user_file()}",
        )


def load(
    *,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    lazily: bool = False,
) -> LoadedSettings:
    """The configuration as it holds in directory `start` (default: here). `flags` is a nested
    table of what the command line said. `lazily`: one that was valid before is not validated before
    it has to be (`known_settings`). Raises `ConfigError` with file, key and fix."""
    return read(environ=environ, start=start, flags=flags, lazily=lazily).trusted()


def here() -> Path:
    """The current directory. Raises ConfigError where it was removed."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the current directory cannot be read: {error.strerror}",
            hint="cd to one that is there",
        ) from None


def read(
    *,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    lazily: bool = False,
) -> LoadedSettings:
    """The same, to be looked at: also with what a project may not say (`LoadedSettings.held`)."""
    environ = os.environ if environ is None else environ
    layers = _files(environ, start or here())
    if not any(layer.values.get("providers") for layer in layers):
        layers.insert(0, ConfigLayer("default", {"providers": DEFAULT_PROVIDERS}))
    layers += _environment(environ)
    if flags:
        layers.append(ConfigLayer("flag", flags))
    merged: dict[str, Any] = {}
    origins: dict[Path_, str] = {}
    own: dict[Path_, Any] = {}
    for layer in layers:
        if layer.file is not None:
            own = dict(_leaves(merged))
        _merge(merged, layer.values, (), layer.origin, origins)

    def validate() -> Settings:
        return _validated(merged, origins)

    settings = known_settings.settings(merged, validate) if lazily else validate()
    held = {
        key: layer.file
        for layer in layers
        if layer.file is not None
        for key in trust.held(layer.values, own, merged)
        if origins.get(key) == layer.origin  # nothing stronger says it
    }
    return LoadedSettings(settings=settings, origins=origins, held=held)


def _validated(values: Mapping[str, Any], origins: Mapping[Path_, str]) -> Settings:

    from pydantic import ValidationError

    from vmrunner.config.settings import Settings
    from vmrunner.config.validation_errors import explained

    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise explained(
            error, Settings, lambda where: _place(where, origins), hide=_hidden
        ) from None
    if settings.default_provider is not None:
        try:
            settings.provider()
        except ConfigError as error:
            place = _place(("default_provider",), origins)
            raise ConfigError(f"{place}{error.args[0]}", hint=error.hint) from None
    return settings


class ConfigPlace(NamedTuple):
    """A place where a configuration file may be. `state`: used, absent, not obeyed, as
    another user may have written it, or unread, where `VMRUNNER_CONFIG` names another."""

    source: str
    path: Path
    state: str


def places(environ: Mapping[str, str], start: Path) -> list[ConfigPlace]:
    """The places of configuration files that hold in directory `start`, weakest first."""
    project = project_file(start)
    found = [("user", user_file()), ("project", project or start / PROJECT)]
    if (named := environ.get("VMRUNNER_CONFIG")) is not None:
        rest = [ConfigPlace(source, path, "unread") for source, path in found if path.is_file()]
        path = Path(named).expanduser()
        return [*rest, ConfigPlace("VMRUNNER_CONFIG", path, _state(path))]
    doubtful = project is not None and trust.doubt(project) is not None
    own = "absent" if project is None else "not obeyed" if doubtful else "used"
    states = [_state(user_file()), own]
    return [
        ConfigPlace(source, path, state)
        for (source, path), state in zip(found, states, strict=True)
    ]


def _state(path: Path) -> str:
    return "used" if path.is_file() else "absent"


def dump(settings: Settings) -> str:
    """The settings as TOML that reads back to the same, without the secret key."""
    values = settings.model_dump(mode="json", exclude_none=True, exclude={"secret_key"})
    values["database"] = {"url": database_url(settings)}
    import tomli_w

    return tomli_w.dumps(values)


# --- layers --------------------------------------------------------------------------------------


def user_file() -> Path:
    """The user's own."""
    return platformdirs.user_config_path("vmrunner") / "config.toml"


def project_file(start: Path) -> Path | None:
    """The nearest, from `start` upwards, that configures us."""
    for directory in (start, *start.parents):
        for name in (PROJECT, "pyproject.toml"):
            file = directory / name
            if file.is_file() and (name == PROJECT or _has_table(file)):
                return file
    return None


def _files(environ: Mapping[str, str], start: Path) -> list[ConfigLayer]:
    named = environ.get("VMRUNNER_CONFIG")
    if named is not None:
        if not named:
            raise _empty("VMRUNNER_CONFIG")
        file = Path(named).expanduser()
        if not file.is_file():
            raise ConfigError(
                f"VMRUNNER_CONFIG: no file {named!r}", hint="correct it, or unset the variable"
            )
        return [_layer(file)]
    layers = []
    if user_file().is_file():
        layers.append(_layer(user_file()))
    project = project_file(start)
    if project is not None:
        layers += _obeyed(project)
    return layers


def _obeyed(project: Path) -> list[ConfigLayer]:
    """A project's file, unless others may have written it."""
    found = trust.doubt(project)
    if found is not None:
        fix = f"{found.fix}; or name it by VMRUNNER_CONFIG"
        log.warning("%s is not obeyed: %s (%s)", project, found.why, fix)
        return []
    content = _content(project)
    layer = _layer(project, content)
    return [layer if trust.trusted(project, content) else layer._replace(file=project)]


def _has_table(pyproject: Path) -> bool:
    """True if the file is about us. It may be anybody's: what cannot be read is told where it is to
    be obeyed."""
    try:
        content = _content(pyproject)
        return b"vmrunner" in content and _tool(_parsed(pyproject, content)) is not None
    except ConfigError:
        return True


def _layer(file: Path, content: bytes | None = None) -> ConfigLayer:
    table = _parsed(file, _content(file) if content is None else content)
    if file.name != "pyproject.toml":
        return _anchored(ConfigLayer(str(file), table), file.parent)
    mine = _tool(table)
    if not isinstance(mine, dict):
        raise ConfigError(f"{file}: tool.vmrunner: not a table", hint="write [tool.vmrunner]")
    return _anchored(ConfigLayer(f"{file} [tool.vmrunner]", mine), file.parent)


def _tool(table: Mapping[str, Any]) -> Any:
    tools = table.get("tool")
    return tools.get("vmrunner") if isinstance(tools, dict) else None


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read: {error.strerror}", hint="make it readable, or remove it"
        ) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{file}: larger than {MAX_BYTES >> 20} MiB", hint="is it the right file?"
        )
    return content


def _parsed(file: Path, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(
            f"{file}: not valid TOML: {first}", hint="see docs/configuration.md"
        ) from None


def _environment(environ: Mapping[str, str]) -> Iterator[ConfigLayer]:
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        rest = name.removeprefix(PREFIX)
        path = _SHORT.get(rest) or tuple(rest.lower().split("__"))
        value: Any = environ[name]
        shown = name if name.isprintable() else repr(name)
        if not value:
            raise _empty(shown)
        if value[0] in "[{":
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise ConfigError(
                    f"{shown}: not valid JSON: {error}", hint="what begins with [ or { is JSON"
                ) from None
        for key in reversed(path):
            value = {key: value}
        yield _anchored(ConfigLayer(shown, value), Path.cwd())


def _empty(name: str) -> ConfigError:
    """A variable that was to be set, and came to nothing, is not the default."""
    return ConfigError(f"{name}: empty", hint="give it a value, or unset it")


def _anchored(layer: ConfigLayer, directory: Path) -> ConfigLayer:
    """A relative path in a SQLite URL means: beside the file that says so."""
    database = layer.values.get("database")
    if not isinstance(database, dict):
        return layer
    url = database.get("url")
    if not isinstance(url, str) or not url.startswith(SQLITE) or url == SQLITE:
        return layer
    file = directory / Path(url.removeprefix(SQLITE)).expanduser()
    absolute = f"{SQLITE}{Path(os.path.normpath(file))}"
    return ConfigLayer(layer.origin, {**layer.values, "database": {**database, "url": absolute}})


def _merge(
    into: dict[str, Any],
    values: Mapping[str, Any],
    at: Path_,
    origin: str,
    origins: dict[Path_, str],
) -> None:
    for key, value in values.items():
        path = (*at, key)
        if len(path) > _DEEPEST:
            raise ConfigError(
                f"{origin}: {'.'.join(at)}: nested too deep", hint="see docs/configuration.md"
            )
        if isinstance(value, Mapping):
            old = into.get(key)
            other_kind = (
                at == ("providers",)
                and isinstance(old, dict)
                and (value.get("kind", old.get("kind")) != old.get("kind"))
            )
            if not isinstance(old, dict) or other_kind:
                into[key] = {}
                for below in [below for below in origins if below[: len(path)] == path]:
                    del origins[below]
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


#: Fields that hold a secret or name one, and the table that shows these: some write it there.
_SECRET: Final = frozenset({"database.url", "github", "github.token", "github.private_key"})


def _hidden(name: str) -> bool:
    return "secret" in name or name in _SECRET


def schema() -> dict[str, Any]:
    """The JSON Schema of `vmrunner.toml`."""
    from vmrunner.config.settings import Settings

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(),
        "title": "vmrunner.toml",
    }
