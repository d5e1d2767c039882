"""A kubeconfig, as far as its access to one API server goes, and a pod's service account.

The official client is not needed for that, and takes 0.4 s to import. Certificates, tokens, token
files and the JSON protocol of exec plugins are read; what else there is, is refused by name.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from vmrunner.errors import ConfigError
from vmrunner.providers.kubernetes import exec_plugin

#: Where a pod finds its service account.
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
EARLY: Final = 30.0  # seconds before its token's end from which a plugin is asked again
_NOT_TAKEN: Final = ("auth-provider", "username", "password")
_TOKEN: Final = re.compile(r"[!-~]+")

Table = Mapping[str, Any]


@dataclass(slots=True)
class Cluster:
    """An API server, and the way in. `ca`: PEM; None: the host's own authorities."""

    server: str
    credentials: Credentials
    ca: str | None = None
    server_name: str | None = None  # that its certificate has, where that is not its host's
    source: str = ""  # for messages

    def context(self) -> ssl.SSLContext:
        """Return TLS for it, with the certificate of a user who has one. Raises ConfigError."""
        try:
            made = ssl.create_default_context(cadata=self.ca)
            if pair := self.credentials.certificate():
                with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # nobody else's
                    file.write("\n".join(pair))
                    file.flush()
                    made.load_cert_chain(file.name)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.source}: its certificates cannot be used: {error}",
                hint="write the kubeconfig anew",
            ) from error
        return made


class Credentials:
    """A user's, read again where they may be others by now; who sees them refused reads the whole
    kubeconfig again. Thread-safe. `certificate` as PEM."""

    def __init__(self, user: Table, base: Path, where: str, cluster: Table | None = None) -> None:
        for key in _NOT_TAKEN:
            if key in user:
                raise ConfigError(
                    f"{where}: {key} is not taken", hint="use a token, a certificate or exec"
                )
        self._user, self._base, self._where, self._cluster = user, base, where, cluster or {}
        self._lock = threading.Lock()
        self._plugin: dict[str, Any] = {}  # its last answer's status
        self._read: tuple[float, str] = (0.0, "")  # a token file's mtime, and what it said

    def token(self) -> str | None:
        """The bearer token; None: there is none. Raises ConfigError."""
        token = self._user.get("token")
        if path := self._user.get("tokenFile"):
            token = self._of_file(self._base / str(path))
        elif not token and "exec" in self._user:
            token = self._of_plugin().get("token")
        if not token:
            return None
        token = str(token).strip()
        if not _TOKEN.fullmatch(token):  # a library's own complaint would show it
            raise ConfigError(
                f"{self._where}: its token holds what no header takes", hint="write it anew"
            )
        return token

    def certificate(self) -> tuple[str, str] | None:
        """The user's certificate and key as PEM; None: there is none. Raises ConfigError."""
        pair = [_pem(self._user, f"client-{what}", self._base) for what in ("certificate", "key")]
        if pair[0] and pair[1]:
            return pair[0], pair[1]
        if "exec" not in self._user:
            return None
        status = self._of_plugin()
        texts = [str(status.get(f"client{what}Data") or "") for what in ("Certificate", "Key")]
        return (texts[0], texts[1]) if all(texts) else None

    # --- within ---

    def _of_file(self, path: Path) -> str:
        with self._lock:
            try:
                changed = path.stat().st_mtime
                if self._read[0] != changed:
                    self._read = changed, path.read_text().strip()
            except OSError as error:
                raise ConfigError(
                    f"{self._where}: tokenFile {path}: {error.strerror}", hint="mount it, or log in"
                ) from error
            return self._read[1]

    def _of_plugin(self) -> Table:
        with self._lock:
            ends = self._plugin.get("expirationTimestamp")
            if self._plugin and (not ends or _time(str(ends)) - EARLY > time.time()):
                return self._plugin
            plugin = _table(self._user["exec"], f"{self._where}: exec")
            status = exec_plugin.run(plugin, self._base, self._where, self._cluster)
            try:
                _time(str(status.get("expirationTimestamp") or "9999-01-01T00:00:00Z"))
            except ValueError as error:
                text = f"{self._where}: exec: expirationTimestamp is no time"
                raise ConfigError(text, hint="correct the plugin") from error
            self._plugin = status
            return self._plugin


@dataclass(slots=True)
class _Files:
    """The kubeconfig's files; what is called the same, the first that has it tells."""

    paths: tuple[Path, ...]
    tables: list[tuple[Path, Table]] = field(default_factory=list)

    def read(self) -> None:
        for path in self.paths:
            try:
                table = yaml.safe_load(path.read_text())
            except FileNotFoundError:
                continue
            except yaml.MarkedYAMLError as error:  # its words show the line, a token's too
                mark = error.problem_mark
                place = f"line {mark.line + 1}: " if mark else ""
                text = f"kubeconfig: {path}: {place}{error.problem}"
                raise ConfigError(text, hint="correct it") from None
            except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
                text = " ".join(str(error).split())[:200]
                raise ConfigError(f"kubeconfig: {path}: {text}", hint="correct it") from error
            if isinstance(table, dict):
                self.tables.append((path, table))

    def named(self, what: str, name: str) -> tuple[Path, Table]:
        """The entry of the list `what`s that is called so."""
        for path, table in self.tables:
            for entry in _entries(table, what):
                if entry.get("name") == name:
                    return path, _table(entry.get(what) or {}, f"kubeconfig {path}: {what} {name}")
        names = [str(e.get("name")) for _, table in self.tables for e in _entries(table, what)]
        hint = f"one of: {', '.join(names) or 'none is there'}"
        raise ConfigError(f"kubeconfig: it has no {what} {name!r}", hint=hint)

    def current(self) -> str:
        names = (table.get("current-context") for _, table in self.tables)
        return str(next((name for name in names if name), ""))


def find(
    kubeconfig: str | None,
    context: str | None,
    *,
    environ: Mapping[str, str] = os.environ,
    account: Path = ACCOUNT,
) -> Cluster:
    """The API server that is meant: of this kubeconfig, of KUBECONFIG, of ~/.kube/config; in a pod,
    where none of them is there or said, its own. Raises ConfigError."""
    named = kubeconfig or environ.get("KUBECONFIG")
    parts = (kubeconfig,) if kubeconfig else (named or "~/.kube/config").split(os.pathsep)
    files = _Files(tuple(Path(part).expanduser() for part in parts if part))
    files.read()
    if not files.tables:
        if not named and context is None and environ.get("KUBERNETES_SERVICE_HOST"):
            return _in_cluster(environ, account)
        raise ConfigError(
            f"kubeconfig: {', '.join(map(str, files.paths))}: no such file",
            hint="set kubeconfig or KUBECONFIG, or run in a pod with a service account",
        )
    name = context or files.current()
    if not name:
        raise ConfigError("kubeconfig: no current-context", hint="set context")
    _, chosen = files.named("context", name)
    place, cluster = files.named("cluster", str(chosen.get("cluster")))
    home, user = files.named("user", str(chosen.get("user")))
    return _cluster(cluster, place, Credentials(user, home.parent, f"kubeconfig {home}", cluster))


def _cluster(table: Table, path: Path, credentials: Credentials) -> Cluster:
    where, server = f"kubeconfig {path}", str(table.get("server") or "")
    if not server.startswith(("https://", "http://127.0.0.1:", "http://[::1]:")):
        raise ConfigError(f"{where}: server {server!r}", hint="https://HOST:PORT")
    if table.get("insecure-skip-tls-verify"):
        why = "insecure-skip-tls-verify: whoever answers would get the token"
        raise ConfigError(f"{where}: {why}", hint="name its certificate-authority")
    if table.get("proxy-url"):
        raise ConfigError(f"{where}: proxy-url is not taken", hint="set HTTPS_PROXY")
    ca, name = _pem(table, "certificate-authority", path.parent), table.get("tls-server-name")
    return Cluster(server.rstrip("/"), credentials, ca, str(name) if name else None, where)


def _in_cluster(environ: Mapping[str, str], account: Path) -> Cluster:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    table = {"server": server, "certificate-authority": "ca.crt"}
    credentials = Credentials({"tokenFile": "token"}, account, "service account")
    return _cluster(table, account / "config", credentials)


def _pem(table: Table, key: str, base: Path) -> str | None:
    """The text of a certificate or key: in the table itself, or in a file beside it."""
    try:
        if data := table.get(f"{key}-data"):
            return base64.b64decode(data, validate=True).decode()
        return (base / str(table[key])).read_text() if table.get(key) else None
    except (OSError, ValueError, binascii.Error) as error:
        raise ConfigError(f"kubeconfig: {key}: {error}", hint="write it anew") from error


def _entries(table: Table, what: str) -> list[Table]:
    """Entries of the list `what`s; what is none is as if it were not there."""
    found = table.get(f"{what}s")
    return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []


def _table(value: object, where: str) -> Table:
    """Raises ConfigError for what is none."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: it is no table", hint="write the kubeconfig anew")
    return value


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
