"""Database URLs, taken apart as SQLAlchemy does it, without loading it. Pure."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlencode

MASK: Final = "***"
SQLITE: Final = "sqlite:///"

_URL: Final = re.compile(
    r"(?P<scheme>[\w+]+)://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:(?:\[(?P<v6>[^/?]+)\]|(?P<host>[^/:?]+))?(?::(?P<port>[^/?]*))?)?"
    r"(?P<path>/[^?]*)?"
    r"(?:\?(?P<query>.*))?",
    re.DOTALL,
)
#: More than one server: who of them writes is asked when a connection is made.
_SERVERS: Final = re.compile(
    r"(?P<before>[\w+]+://(?:[^:/]*(?::[^@]*)?@)?)"
    r"(?P<hosts>[^/?,]*(?:,[^/?,]*)+)"
    r"(?P<path>/[^?]*)?"
    r"(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_SERVER: Final = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d+))?")
#: An `@` that should have been written %40 is part of the password still.
_PASSWORD: Final = re.compile(r"([\w+]+://[^:/?@]*):[^@]*(?:@[^@/?]*(?=@))*@", re.DOTALL)
_PARAMETER: Final = re.compile(r"(passw\w*\s*=\s*)[^&\s]*", re.IGNORECASE)


class DatabaseServer(NamedTuple):
    """One database of one server."""

    host: str
    port: int | None
    path: str
    query: str


def server(url: str) -> DatabaseServer:
    """Raises ValueError for a URL that cannot be taken apart. Of several hosts all are in the
    query."""
    found = _URL.match(spread(url))
    if found is None:
        raise ValueError("not a URL; such as postgresql://user@host/name")
    port = found["port"]
    if port and not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError("the port is not a number; a password's `/`, `:` and `@` are written %2F…")
    host = (found["v6"] or found["host"] or "").lower()
    return DatabaseServer(
        host, int(port) if port else None, found["path"] or "", found["query"] or ""
    )


class ConnectArguments(NamedTuple):
    """Words of a URL to a client: the database, all else by name, and parameters."""

    database: str | None
    arguments: dict[str, Any]
    query: dict[str, str | tuple[str, ...]]


def connect_arguments(url: str) -> ConnectArguments:
    """A URL whose hosts are spread, taken apart for a client. Raises ValueError."""
    found = _URL.match(url)
    if found is None:
        raise ValueError("not a URL; such as postgresql://user@host/name")
    words = parse_qs(found["query"] or "")
    query = {name: v[0] if len(v) == 1 else tuple(v) for name, v in words.items()}
    database = found["path"][1:] if found["path"] else None
    named: dict[str, Any] = {
        "host": found["v6"] or found["host"],
        "port": int(found["port"]) if found["port"] else None,
        "user": unquote(found["user"] or ""),
        "password": unquote(found["password"] or ""),
        "dbname": database,
    }
    arguments = {name: value for name, value in named.items() if value}
    arguments |= {name: ",".join(values) for name, values in words.items()}
    return ConnectArguments(database, arguments, query)


def spread(url: str) -> str:
    """The URL with its hosts, where it names several (`h1:5432,h2`), as parameters `host` and
    `port`, which is how SQLAlchemy takes them. Raises ValueError for one that is no host."""
    found = _SERVERS.fullmatch(url)
    if found is None:
        return url
    servers = [_SERVER.fullmatch(part) for part in found["hosts"].split(",")]
    ports = [server["port"] or "" for server in servers if server is not None]
    if len(ports) < len(servers) or any(int(port or 0) >= 1 << 16 for port in ports):
        raise ValueError(
            f"its hosts {found['hosts']} cannot be read; such as postgresql://user@h1:5432,h2/name"
        )
    hosts = [server["v6"] or server["host"] for server in servers if server is not None]
    listed = {"host": ",".join(hosts)} | ({"port": ",".join(ports)} if any(ports) else {})
    query = "&".join(filter(None, (urlencode(listed), found["query"])))
    return f"{found['before']}{found['path'] or ''}?{query}"


def file(url: str) -> str:
    """The path in a SQLite URL. Raises ValueError when there is none."""
    path = url.removeprefix(SQLITE).partition("?")[0]
    if path.rpartition("/")[2] in ("", ".", ".."):
        raise ValueError(f"{url} names no file; such as sqlite:////var/lib/vmrunner/ledger.db")
    return path


def shown(url: str) -> str:
    """The URL with its passwords masked, however wrong it is."""
    if "@" in url and "://" not in url:
        url = f"{MASK}@{url.rpartition('@')[2]}"
    return _PARAMETER.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1:{MASK}@", url))
