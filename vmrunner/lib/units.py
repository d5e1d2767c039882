"""Durations, sizes, `K=V` pairs and names as people write them. Pure.

Every function takes the name of the field that it reads for, so that its `ConfigError` can say
field, value and fix in one line.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from vmrunner.errors import ConfigError

Duration = str | int | float | timedelta

_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_DURATION_FIX: Final = "write it like 30m, 1h30m, 90s, or as seconds"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)(i?)(b?)", re.ASCII | re.IGNORECASE)
_SIZE_FIX: Final = "write it like 512MiB, 4GiB, or as bytes"
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_MOST: Final = (1 << 63) - 1  # bytes: what every database holds
#: Number of lines or rows that may be said, at most.
MOST_ROWS: Final = 1 << 53

ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?", re.ASCII)
LABEL_CHARACTERS: Final = 255  # of a value, at most


#: Characters of a duration, a size, or a word that may be mistyped.
_LONGEST: Final = 64


def duration(value: object, field: str = "duration") -> float:
    """Seconds, from "30m", "1h30m", a number of seconds, or a timedelta. Never negative."""
    if isinstance(value, str) and len(value) > _LONGEST:
        raise ConfigError(f"{field}: {value[:40]!r}… is not a duration", hint=_DURATION_FIX)
    seconds = _duration(value)
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        raise ConfigError(f"{field}: {value!r} is not a duration", hint=_DURATION_FIX)
    return seconds


def _duration(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        # An integer may be larger than any float.
        return float(value) if abs(value) <= sys.float_info.max else math.inf
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)


def size(value: object, field: str = "size") -> int:
    """Bytes, from "4GiB", "4G" (the same, as Docker reads it), "4GB" (decimal) or a number."""
    if isinstance(value, str) and len(value) > _LONGEST:
        raise ConfigError(f"{field}: {value[:40]!r}… is not a size", hint=_SIZE_FIX)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one number, however it is written
    found = _size(value)
    if found is None or not 0 <= found <= _MOST:
        raise ConfigError(f"{field}: {value!r} is not a size", hint=_SIZE_FIX)
    return int(found)


def _size(value: object) -> float | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or (match[3] and not match[2]):
        return None
    base = 1000 if match[2] and match[4] and not match[3] else 1024
    return float(match[1]) * float(base ** _POWERS[match[2].lower()])


def pair(text: str, field: str) -> tuple[str, str]:
    """("K", "V") from "K=V"; the value may hold more of `=`."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{field}: {text!r} has no name and value", hint="write NAME=VALUE")
    return key, value


def together(values: Mapping[str, object]) -> None:
    """Check that of these values, by their fields, all are given or none. Raises ConfigError."""
    missing = [field for field, value in values.items() if value is None]
    given = [field for field in values if field not in missing]
    if missing and given:
        raise ConfigError(
            f"{missing[0]}: missing beside {given[0]}", hint=f"give {' and '.join(values)}, or none"
        )


def env_name(name: str, field: str = "env") -> str:
    """The name of an environment variable, checked."""
    if not ENV_NAME.fullmatch(name):
        raise ConfigError(
            f"{field}: {name!r} is not a variable's name",
            hint="use letters, digits and _, not beginning with a digit",
        )
    return name


def env(text: str, field: str = "env") -> tuple[str, str]:
    """Parse one `-e K=V`."""
    name, value = pair(text, field)
    return env_name(name, field), env_value(name, value, field)


def env_value(name: str, value: str, field: str = "env") -> str:
    """The value of an environment variable, checked: no process can be given a NUL."""
    if "\0" in value:
        raise ConfigError(f"{field}: {name} holds a NUL byte", hint="pass binary data as a file")
    return value


def label(text: str, field: str = "label") -> tuple[str, str]:
    """Parse one `-l K=V`."""
    key, value = pair(text, field)
    return check_label(key, value, field)


def labels(texts: Iterable[str], field: str = "label") -> dict[str, str]:
    """Parse each `--label K=V`. One that is given two values is refused: either may be meant."""
    found: dict[str, str] = {}
    for key, value in (label(text, field) for text in texts):
        if found.setdefault(key, value) != value:
            raise ConfigError(
                f"{field}: {key!r} is given as {found[key]!r} and as {value!r}",
                hint=f"give one {field} {key}=VALUE",
            )
    return found


def check_label(key: str, value: str, field: str = "label") -> tuple[str, str]:
    """A label that every table, terminal and cloud can hold."""
    if not _LABEL_KEY.fullmatch(key):
        raise ConfigError(
            f"{field}: {key!r} is not a label's name",
            hint="at most 63 letters, digits, . _ / -, beginning and ending with a letter or digit",
        )
    if len(value) > LABEL_CHARACTERS or not (value.isprintable() or value == ""):
        raise ConfigError(
            f"{field}: the value of {key!r} is too long or not printable",
            hint=f"at most {LABEL_CHARACTERS} printable characters",
        )
    return key, value


def nearest(word: str, choices: Iterable[str]) -> str:
    """The one of `choices` that was probably meant, or ""."""
    if len(word) > _LONGEST:
        return ""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return found[0] if found else ""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A hint for a word that is not one of `choices`: the nearest, else all of them."""
    names = sorted(choices)
    near = nearest(word, names)
    if near:
        return f"did you mean {near!r}?"
    return f"one of: {', '.join(names)}" if names else "there is none"


def nearest_of(word: str, choices: Iterable[str]) -> str:
    """A hint with the nearest of very many, or ""."""
    near = nearest(word, choices)
    return f"did you mean {near!r}?" if near else ""


def is_loopback(host: str) -> bool:
    """True if an address or name can only be this host."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def span(seconds: float) -> str:
    """A duration for people: 0.4s, 41s, 3m07s, 1h02m, 2d03h."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def exact(seconds: float) -> str:
    """A duration as it may be written again: 4h, 1h30m, 90.5s."""
    rest, text = seconds, ""
    for unit in ("d", "h", "m"):
        count = int(rest // _SECONDS[unit])
        rest -= count * _SECONDS[unit]
        text += f"{count}{unit}" if count else ""
    return text + (f"{rest:g}s" if rest or not text else "")


def address(text: str, field: str) -> tuple[str, int]:
    """HOST:PORT, or [IPv6]:PORT, taken apart. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(
            f"{field}: {text!r} is no address", hint="HOST:PORT, such as 127.0.0.1:8470"
        )
    return bare, int(port)


def amount(count: int) -> str:
    """A number of bytes for people: 17 B, 4.0 KiB, 1.2 GiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def exact_size(count: int) -> str:
    """A number of bytes as it may be written again: 64MiB, 20GiB, 1500."""
    powers = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
    whole = (f"{count // size}{unit}" for size, unit in powers if count and not count % size)
    return next(whole, str(count))
