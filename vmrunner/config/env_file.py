"""Files of environment variables, as Docker's `--env-file` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vmrunner.errors import ConfigError
from vmrunner.lib import units

MAX_BYTES: Final = 4 << 20


def read(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """A line is NAME=VALUE, taken as it is, or NAME, taken from this environment; `#` begins a
    comment. Raises ConfigError with file and line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise ConfigError(f"env-file: {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"env-file: {str(path)!r} is not UTF-8", hint="save it so") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"env-file: {str(path)!r} is too large", hint="is it the right file?")
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.lstrip().partition("=")
        place = f"env-file: {path}:{number}"
        units.env_name(name, place)
        if not equals and name not in environ:
            raise ConfigError(f"{place}: {name} is not set here", hint=f"write {name}=VALUE")
        found[name] = units.env_value(name, value if equals else environ[name], place)
    return found
