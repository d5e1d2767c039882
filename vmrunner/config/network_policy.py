"""Values of `network`: `open`, `none`, or an allow-list, as a table or in one word
(`allow=HOST[:PORT],…`). One place for each kind of file, Python, HTTP and the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from vmrunner.config import field_checks
from vmrunner.config.fault_words import written
from vmrunner.errors import ConfigError
from vmrunner.model import AllowList, Network, NetworkPolicy

MOST_HOSTS: Final = 100  # entries

WORDS: Final = [policy.value for policy in Network]
IN_ONE_WORD: Final = "allow="
_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_SUCH_AS: Final = "such as packages.example.org, *.example.net or example.org:8443"
#: Ports on which the first bytes tell no name.
_NAMELESS: Final = {22: "SSH", 53: "DNS"}


def policy(value: object, field: str) -> NetworkPolicy:
    """Return the policy that this says. Raises ConfigError."""
    if isinstance(value, str) and value in WORDS:
        return Network(value)
    if isinstance(value, AllowList):
        return _allow_list(value.allow, field)
    if isinstance(value, Mapping):
        if list(value) != ["allow"]:
            raise ConfigError(
                f"{field}: a table with {', '.join(map(repr, value)) or 'nothing'}",
                hint='{ allow = ["HOST[:PORT]", …] }, and nothing else',
            )
        return _allow_list(value["allow"], field)
    if isinstance(value, str) and value.startswith(IN_ONE_WORD):
        return _allow_list(value.removeprefix(IN_ONE_WORD).split(","), field)
    return Network(field_checks.choice(value, field, "policy", [*WORDS, "allow=HOST[:PORT],…"]))


def _allow_list(entries: object, field: str) -> AllowList:
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise ConfigError(f"{field}: allow is {written(entries)}, not a list", hint=_SUCH_AS)
    if not entries:
        raise ConfigError(f"{field}: allow is empty", hint=f"{_SUCH_AS}, or network = none")
    if len(entries) > MOST_HOSTS:
        raise ConfigError(
            f"{field}: allow has {len(entries)} entries, at most {MOST_HOSTS} are possible",
            hint="a wildcard such as *.example.net holds all names below one",
        )
    found: dict[str, str] = {}
    for text in entries:
        entry = _entry(field_checks.text(text, field), field)
        if entry in found:
            raise ConfigError(
                f"{field}: {text!r} and {found[entry]!r} are the same", hint="name it once"
            )
        found[entry] = text
    return AllowList(tuple(found))


def _entry(text: str, field: str) -> str:
    """Return an entry in the one way that it is compared in. Port 443 is the one that needs no
    word."""
    if "/" in text:
        raise _refused(field, text, "is more than a name", f"without scheme and path, {_SUCH_AS}")
    host, colon, port = text.partition(":")
    if "[" in host or ":" in port:
        raise _refused(field, text, "is an address", f"an allow-list has names, {_SUCH_AS}")
    name = _name(host, text, field)
    if not colon:
        return name
    number = int(port) if re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) else 0
    if not 0 < number < 1 << 16:
        raise _refused(field, text, "has no port after the colon", "1 to 65535")
    if number in _NAMELESS:
        raise _refused(
            field, text, f"is a port of {_NAMELESS[number]}, whose bytes tell no name",
            "a port of TLS, or 80; fetch by https",
        )  # fmt: skip
    return name if number == 443 else f"{name}:{number}"


def _name(host: str, text: str, field: str) -> str:
    wildcard, name = ("*.", host[2:]) if host.startswith("*.") else ("", host)
    if "*" in name:
        raise _refused(field, text, "has a * in a name", "only *. at its beginning is a wildcard")
    name = _ascii(name, text, field).lower()
    labels = name.split(".")
    if name.endswith("."):
        raise _refused(field, text, "ends in a dot", "leave the dot out")
    if _NUMBER.fullmatch(labels[-1]):
        raise _refused(field, text, "is an address", f"an allow-list has names, {_SUCH_AS}")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _refused(field, text, "is no name of a host", _SUCH_AS)
    if len(labels) < 2:
        fix = f"a name with a dot, {_SUCH_AS}"
        what = "would let a whole top-level domain in" if wildcard else "has one label only"
        raise _refused(field, text, what, fix)
    return wildcard + name


def _ascii(name: str, text: str, field: str) -> str:
    """Return an international name as DNS and TLS have it."""
    if name.isascii():
        return name
    import idna

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise _refused(field, text, f"is no international name: {error}", _SUCH_AS) from None


def _refused(field: str, text: str, why: str, fix: str) -> ConfigError:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return ConfigError(f"{field}: {shown!r} {why}", hint=fix)
