"""Checks of single values from users, by whichever door: command line, job file or
Python. Each raises `ConfigError` with field, value and fix. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vmrunner.errors import ConfigError
from vmrunner.lib import globs, units

if TYPE_CHECKING:
    from vmrunner.model import ArtifactRule, CommandOrder, Step

#: What Linux gives a new process: 128 KiB for each variable, 2 MiB for all that it starts with, of
#: which the image and a step's own words need some.
VARIABLE_BYTES: Final = 128 << 10
ENVIRONMENT_BYTES: Final = (2 << 20) - (256 << 10)
_POINTER: Final = 8
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    rf"(?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d+/))(?::\d+)?/)?"
    rf"{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)  # of a build
COMMAND_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
#: Names of variables, and of secrets, as a schema says them.
VARIABLES: Final[dict[str, Any]] = {"propertyNames": {"pattern": f"^{units.ENV_NAME.pattern}$"}}
_USER: Final = re.compile(r"[A-Za-z_0-9][A-Za-z0-9_.-]{0,31}", re.ASCII)
TITLE: Final = 200  # characters of a command's title
SECRET_BYTES: Final = 64 << 10
SECRETS: Final = 500  # of one build
SECRET_LINES: Final = 4000  # of all of them
LABELS: Final = 64  # of one build
STEPS: Final = 1000
ARTIFACTS: Final = 1000
LEAST_MEMORY: Final = 256 << 20
LEAST_DISK: Final = 1 << 30
C = TypeVar("C", bound=Collection[Any])
_INT: Final = (1 << 31) - 1  # what every database holds


def text(value: object, field: str) -> str:
    """Text that is not empty: an unset variable must not turn into a default."""
    checked = characters(value, field)
    if not checked.strip():
        raise ConfigError(f"{field}: empty", hint="give it a value, or leave it out")
    return checked


def characters(value: object, field: str) -> str:
    """Any text that can be written down."""
    if not isinstance(value, str):
        raise ConfigError(f"{field}: {_short(value)} is not text", hint="put it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{field}: {_short(value)} is not UTF-8", hint="pass it as a file"
        ) from None
    return value


def content(value: object, field: str) -> bytes:
    """Bytes, or text as UTF-8. A number is neither: `bytes` would take it for that many zeros."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise ConfigError(f"{field}: {_short(value)} is neither text nor bytes", hint="such as b''")
    return characters(value, field).encode()


def choice(value: object, field: str, noun: str, choices: Iterable[str]) -> str:
    """One of a few words."""
    chosen = text(value, field)
    if chosen not in choices:
        raise ConfigError(
            f"{field}: no {noun} {_short(chosen)}", hint=f"one of: {', '.join(choices)}"
        )
    return chosen


def whole(value: object, field: str, least: int = -_INT, most: int = _INT) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{field}: {_short(value)} is not a whole number", hint="such as 1")
    if value < least:
        raise ConfigError(f"{field}: {value} is too little", hint=f"at least {least}")
    if value > most:
        raise ConfigError(f"{field}: {value} is too much", hint=f"at most {most}")
    return value


def flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{field}: {_short(value)} is neither true nor false", hint="give one")
    return value


def several(value: object, field: str) -> Sequence[Any]:
    """A list, and not one text, whose letters would be taken for its items."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ConfigError(f"{field}: {_short(value)} is not a list", hint=f"{field}=[…]")
    return value


def few(value: C, most: int, field: str) -> C:
    """A list or table of so many at most."""
    if len(value) > most:
        raise ConfigError(f"{field}: {len(value)} are too many", hint=f"at most {most}")
    return value


def table(value: object, field: str) -> Mapping[str, str]:
    """Text by name."""
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{field}: {_short(value)} is not a mapping", hint=f"{field}={{'NAME': 'VALUE'}}"
        )
    return {
        text(key, f"{field}: a name"): characters(item, f"{field}: {key}")
        for key, item in value.items()
    }


def environment_table(value: object, field: str) -> Mapping[str, str]:
    return {
        units.env_name(name): units.env_value(name, item)
        for name, item in table(value, field).items()
    }


def label_table(value: object, field: str) -> Mapping[str, str]:
    if isinstance(value, Mapping):
        few(value, LABELS, field)
    labels = table(value, field)
    return dict(units.check_label(key, item) for key, item in labels.items())


def artifact_rules(value: object, field: str) -> tuple[ArtifactRule, ...]:
    """Rules from a list, in which a glob alone is one."""
    from vmrunner.model import ArtifactRule  # late: `config show` needs no builds

    rules = tuple(
        rule if isinstance(rule, ArtifactRule) else ArtifactRule(glob=rule)
        for rule in few(several(value, field), ARTIFACTS, field)
    )
    for rule in rules:
        flag(rule.always, f"{field}: always")
        globs.check(characters(rule.glob, field))
    globs.check_all([rule.glob for rule in rules], field)
    return rules


def steps(value: object, field: str) -> tuple[Step, ...]:
    return tuple(map(_step, few(several(value, field), STEPS, field)))


def _step(step: Step) -> Step:
    if step.run is not None and step.argv:
        raise ConfigError(
            f"command: {step.title!r} has `run` and `argv`", hint="give exactly one of the two"
        )
    words = [step.run] if step.run is not None else list(several(step.argv, "argv"))
    words = [characters(word, "command") for word in words]
    if not words or not words[0] or any("\0" in word for word in words):
        raise ConfigError(
            f"command: {step.title!r} is not a command", hint="not empty, and no NUL byte"
        )
    if step.run is None and (longest := max(words, key=len)):
        word(longest)
    characters(step.name, "name of a step")
    environment_table(step.env, "env")
    if step.timeout is None:
        return step
    seconds = units.duration(step.timeout, "timeout of a step")
    if seconds <= 0:
        raise ConfigError(f"timeout: {seconds:g} of a step", hint="more than 0")
    return replace(step, timeout=seconds)


def secret_values(value: object, field: str) -> Mapping[str, bytes]:
    """Values by name. No error repeats one."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{field}: not a mapping", hint=f"{field}={{'NAME': b'VALUE'}}")
    few(value, SECRETS, field)
    lines = sum(len(secret.splitlines()) for secret in value.values() if isinstance(secret, bytes))
    if lines > SECRET_LINES + len(value):
        raise ConfigError(
            f"secret: they have {lines} lines together, and {SECRET_LINES} may be: each is looked "
            "for in the log",
            hint="encode the long one, with base64 in one line for example",
        )
    for name, item in value.items():
        units.env_name(characters(name, "secret"), "secret")
        if not isinstance(item, bytes):
            raise ConfigError(f"secret: the value of {name!r} is not bytes", hint="encode it")
        if not item:
            raise ConfigError(f"secret: {name} is empty", hint="set it, or leave it out")
        if len(item) > SECRET_BYTES or b"\0" in item:
            raise ConfigError(
                f"secret: {name} is larger than {SECRET_BYTES >> 10} KiB or holds a NUL byte",
                hint="an environment variable cannot hold it; put a key to it there",
            )
    return dict(value)


def build_name(value: object, field: str) -> str:
    name = text(value, field)
    if not NAME.fullmatch(name) or name.startswith(("b-", "vm-")):
        raise ConfigError(
            f"{field}: {_short(name[:100])} cannot be a build's name",
            hint="at most 63 letters, digits, . _ -, and not beginning like an id",
        )
    return name


def idempotency_key(value: object, field: str) -> str:
    key = characters(value, field)
    if not (0 < len(key) <= 255 and key.isprintable()):
        raise ConfigError(
            f"{field}: {key[:40]!r} cannot be one", hint="1 to 255 printable characters"
        )
    return key


def container(value: str, field: str = "container") -> str:
    if len(value) > 512 or not _IMAGE.fullmatch(value):
        raise ConfigError(
            f"{field}: {_short(value[:512])} is not a container image's name",
            hint="such as debian:trixie or registry.example.org/team/image:tag",
        )
    return value


def command_order(order: CommandOrder) -> CommandOrder:
    """A command of a sandbox. Its title is cut between words: a secret in it stays whole."""
    from vmrunner.model import Step

    if not order.argv or not order.argv[0]:
        raise ConfigError("command: empty", hint="a program, or a shell line")
    if not COMMAND_ID.fullmatch(order.id):
        raise ConfigError(
            f"id: {_short(order.id)} is no id of a command",
            hint="up to 64 letters, digits, - and _",
        )
    for argument in order.argv:
        if "\0" in characters(argument, "command"):
            raise ConfigError("command: it holds a NUL byte", hint="no command can")
    characters(order.title, "title")
    environment_table(order.env, "env")
    if not text(order.cwd, "cwd").startswith("/") or "\0" in order.cwd:
        raise ConfigError(f"cwd: {_short(order.cwd)} is no path from the root", hint="/work, say")
    if order.user is not None and not _USER.fullmatch(characters(order.user, "user")):
        raise ConfigError(f"user: {_short(order.user)} is no user's name", hint="such as nobody")
    if order.user is not None and order.user.isdecimal():
        raise ConfigError(
            f"user: {_short(order.user)} is a number",
            hint="a name of the container's /etc/passwd, such as nobody",
        )
    if order.timeout is not None and order.timeout <= 0:
        raise ConfigError(f"timeout: {order.timeout:g} s leaves no time", hint="more than 0")
    flag(order.stdin, "stdin")
    environment({}, {}, [Step(env=order.env)])
    size = sum(len(argument.encode()) + 1 for argument in order.argv)
    if size > ENVIRONMENT_BYTES // 2 or max(len(argument.encode()) for argument in order.argv) >= (
        VARIABLE_BYTES
    ):
        raise ConfigError(
            f"command: {units.amount(size)} is more than a command line holds",
            hint="write it to a file first, or send it on stdin",
        )
    return replace(order, title=textwrap.shorten(order.title, TITLE, placeholder=" …"))


def at_least(count: int, field: str, least: int) -> int:
    """A size that is no less than what a VM can do with."""
    if count < least:
        raise ConfigError(
            f"{field}: {units.amount(count)} is too little", hint=f"at least {units.amount(least)}"
        )
    return count


def secret(value: str) -> str:
    """`NAME` or `NAME=@FILE`, as a file may name a secret."""
    name, equals, rest = characters(value, "secret").partition("=")
    units.env_name(name, "secret")
    if equals and (not rest.startswith("@") or rest == "@" or "\0" in rest):
        raise ConfigError(f"secret: {name} is given a value here", hint=f"{name}, or {name}=@FILE")
    return value


def environment(env: Mapping[str, str], secrets: Mapping[str, bytes], steps: Sequence[Any]) -> None:
    """Check that a process can be started with it."""
    fixed = {name: len(value.encode()) for name, value in env.items()}
    fixed |= {name: len(value) for name, value in secrets.items()}
    for step in steps:
        sizes = fixed | {name: len(value.encode()) for name, value in step.env.items()}
        total = 0
        for name, size in sizes.items():
            room = len(name) + size + 2  # `=`, and the NUL at the end
            if room > VARIABLE_BYTES:
                raise ConfigError(
                    f"env: {name} has {units.amount(size)}, and no process can be given more than "
                    f"{units.amount(VARIABLE_BYTES)}",
                    hint="pass it as a file, with the source",
                )
            total += room + _POINTER
        if total > ENVIRONMENT_BYTES:
            raise ConfigError(
                f"env: {len(sizes)} variables take {units.amount(total)}, and no process can be "
                f"given more than {units.amount(ENVIRONMENT_BYTES)}",
                hint="pass them as a file, with the source",
            )


def word(value: str) -> None:
    """Check that it can be one word of a command."""
    size = len(value.encode())
    if size >= VARIABLE_BYTES:
        raise ConfigError(
            f"command: a word of {units.amount(size)}, and no process can be given more than "
            f"{units.amount(VARIABLE_BYTES)}",
            hint="pass it as a file, with the source",
        )


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
