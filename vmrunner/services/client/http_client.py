"""Requests to a server, and its problem documents as the exceptions that they were."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from vmrunner import errors
from vmrunner.core import trace_context
from vmrunner.errors import ConfigError, NotAllowed, NoValidToken, ServerUnreachable, VmrunnerError
from vmrunner.lib import cancellation
from vmrunner.services.client import certificates

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

log = logging.getLogger("vmrunner")

API: Final = "/api/v1"
#: Paths outside it.
_OUTSIDE: Final = ("/readyz",)
CONNECT: Final = 10.0  # seconds
ANSWER: Final = 60.0
LOOK: Final = 600.0  # … where the server may ask all clouds first
_LOOKS: Final = ("/reap", "/audit", "/instances")
PLACE: Final = 600.0  # seconds that a place among the token's uploads and streams is waited for
RETRY_PAUSE: Final = 1.0  # … from one try to the next
#: So much of an answer that is none of ours is told.
_SHOWN: Final = 200


class HttpClient:
    """One server, and one token. Safe in threads. `timeout`: seconds for an answer."""

    def __init__(self, url: str, token: str, *, timeout: float = ANSWER) -> None:
        """Raises ConfigError for what is no URL of a server."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ConfigError(
                f"server: {url!r} is not the URL of a server",
                hint="such as https://builds.example.org, in VMRUNNER_SERVER",
            )
        if not token.isascii() or not token.isprintable():
            raise ConfigError(
                "token: it holds characters that no token has", hint="see VMRUNNER_TOKEN"
            )
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._client: httpx2.Client | None = None
        self._lock = threading.Lock()

    def hasty(self, timeout: float) -> HttpClient:
        """Return another for the same server and token, which waits no longer for an answer."""
        return HttpClient(self.url, self._token, timeout=timeout)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request: who asks."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _open(self) -> httpx2.Client:
        """Imported late: most commands speak to no server."""
        import httpx2

        with self._lock:
            if self._client is None:
                headers = self.headers
                if parent := trace_context.parse(os.environ.get("TRACEPARENT", "")):
                    headers["traceparent"] = str(parent)
                self._client = httpx2.Client(
                    base_url=self.url,
                    headers=headers,
                    timeout=httpx2.Timeout(self._timeout, connect=CONNECT),
                    verify=certificates.trusted(),
                    trust_env=True,  # proxies, as every client of the user
                )
            return self._client

    def get(self, path: str, /, **parameters: Any) -> dict[str, Any]:
        """Return the JSON document that a path answers with. Raises what the server raised."""
        return self._json("GET", path, parameters)

    def listed(self, path: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """Return the documents of a list's page."""
        found: list[dict[str, Any]] = self.get(path, **parameters)["items"]
        return found

    def one(self, path: str, /, **parameters: Any) -> dict[str, Any]:
        """Return the one document of an answer."""
        return self.listed(path, **parameters)[0]

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, /, **parameters: Any
    ) -> dict[str, Any]:
        """Send a request that changes something; return the answer's document."""
        return self._json("POST", path, parameters, json=dict(body or {}))

    def put(
        self,
        path: str,
        parts: Callable[[], Iterable[bytes]],
        /,
        *,
        kind: str = "application/octet-stream",
        **parameters: Any,
    ) -> dict[str, Any]:
        """Send bytes as they come; `parts` begins them again where that must be tried again."""
        return patiently(
            lambda: self._json(
                "PUT", path, parameters, headers={"Content-Type": kind}, content=parts()
            )
        )

    def delete(self, path: str, /, **parameters: Any) -> dict[str, Any]:
        """Remove or end something; return the answer's document."""
        return self._json("DELETE", path, parameters)

    @contextmanager
    def stream(
        self, path: str, accept: str = "*/*", /, **parameters: Any
    ) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer as they come."""
        query = {name: value for name, value in parameters.items() if value is not None}
        headers = {"Accept": accept}
        with self._translated(), ExitStack() as stack:

            def ask() -> httpx2.Response:
                answer = stack.enter_context(
                    self._open().stream("GET", API + path, params=query, headers=headers)
                )
                if answer.status_code >= 400:
                    answer.read()
                    raise self.problem(answer.status_code, answer.content)
                return answer

            yield patiently(ask).iter_bytes()

    def _json(
        self, method: str, path: str, parameters: Mapping[str, Any], **body: Any
    ) -> dict[str, Any]:
        query = {name: value for name, value in parameters.items() if value is not None}
        headers = {"Accept": "application/json"} | body.pop("headers", {})
        if path in _LOOKS:
            body["timeout"] = LOOK
        with self._translated():
            answer = self._open().request(
                method, _whole(path), params=query, headers=headers, **body
            )
        if answer.status_code >= 400:
            raise self.problem(answer.status_code, answer.content)
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ServerUnreachable(
                f"{self.url} does not answer as a server of ours: {answer.text[:_SHOWN]!r}",
                hint="see VMRUNNER_SERVER",
            )
        return document

    def problem(self, status: int, body: bytes) -> VmrunnerError:
        """The exception that the server raised, by its answer. Without a token it speaks of
        headers, which is not where a user sets one."""
        if status != 401:
            return problem(status, body)
        if not self._token:
            return NoValidToken(
                f"{self.url} wants a token, and VMRUNNER_TOKEN is not set",
                hint="export VMRUNNER_TOKEN=vmr_…; `vmrunner token create` at the server makes one",
            )
        return NoValidToken(
            f"{self.url} does not take this token: it is mistyped, revoked, or its time is over",
            hint="see VMRUNNER_TOKEN; `vmrunner token create` at the server makes another",
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"value: {error.object[:60]!r} is not UTF-8, and a server takes nothing else",
                hint="give it a name that is",
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ServerUnreachable(
                f"{self.url}: {str(error) or type(error).__name__}",
                hint="is it up, and VMRUNNER_SERVER right?",
            ) from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class _AllTaken(ServerUnreachable):
    """The token has as much under way as it may: there is a place once something of that ends."""


def patiently(ask: Callable[[], T]) -> T:
    """Ask, again and again while all places of the token are taken, for so long at most."""
    until = time.monotonic() + PLACE
    while True:
        try:
            return ask()
        except _AllTaken as error:
            if time.monotonic() >= until:
                raise
            cancellation.check()
            log.info("%s: it is asked again", error)
            time.sleep(RETRY_PAUSE)


def problem(status: int, body: bytes) -> VmrunnerError:
    """Return the exception that a problem document was, as far as it is one of ours."""
    try:
        document = json.loads(body)
        detail, fix = str(document["detail"]), str(document.get("fix") or "")
        name = str(document.get("error") or "")
    except (ValueError, KeyError, TypeError):
        detail, fix, name, document = body.decode("utf-8", "replace")[:_SHOWN], "", "", {}
    if status == 429 and not name:
        return _AllTaken(detail, hint=fix)
    if status in (401, 403) and not name:
        refused = NoValidToken if status == 401 else NotAllowed
        return refused(detail or "the server refuses the token", hint=fix)
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, VmrunnerError)):
        text = detail or f"the server answered {status}"
        return VmrunnerError(text, hint=fix) if status < 500 else ServerUnreachable(text)
    if kind is ConfigError:
        more = [_config_error(error) for error in document.get("errors", [])[1:]]
        return ConfigError(detail, hint=fix, more=more)
    return kind(detail, hint=fix)


def _config_error(document: Mapping[str, Any]) -> ConfigError:
    return ConfigError(str(document.get("detail")), hint=str(document.get("fix") or ""))


def _whole(path: str) -> str:
    return path if path in _OUTSIDE else API + path


def segment(name: str) -> str:
    """Return a word as one part of a path."""
    return quote(name, safe="")
