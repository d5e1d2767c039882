"""A build's secrets, from names to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vmrunner.config import field_checks
from vmrunner.errors import ConfigError


def read(
    options: Sequence[str] | Mapping[str, str | bytes], environ: Mapping[str, str]
) -> dict[str, bytes]:
    """Values by name. A list holds `NAME` (from the environment) or `NAME=@FILE`; the one newline
    at a file's end is not part of the secret."""
    if isinstance(options, Mapping):
        given = {name: _bytes(name, value) for name, value in options.items()}
    else:
        given = dict(_secret(field_checks.characters(text, "secret"), environ) for text in options)
    return dict(field_checks.secret_values(given, "secrets"))


def _secret(text: str, environ: Mapping[str, str]) -> tuple[str, bytes]:
    name, equals, rest = text.partition("=")
    if not equals:
        if name not in environ:
            raise ConfigError(
                f"secret: {name!r} is not set in the environment",
                hint=f"export it, or give --secret {name}=@FILE",
            )
        return name, environ[name].encode(errors="surrogateescape")
    if not rest.startswith("@"):
        raise ConfigError(
            f"secret: the value of {name!r} is on the command line, where others can read it",
            hint=f"export it and give --secret {name}, or --secret {name}=@FILE",
        )
    path = Path(rest[1:]).expanduser()
    try:
        with path.open("rb") as file:
            value = file.read(field_checks.SECRET_BYTES + 2)
    except OSError as error:
        raise ConfigError(f"secret: {name}=@{rest[1:]}: {error.strerror}") from None
    return name, value.removesuffix(b"\n")


def _bytes(name: str, value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):  # it is not shown, whatever it is
        raise ConfigError(f"secret: the value of {name!r} is not text", hint="give str or bytes")
    return value.encode(errors="surrogateescape")
