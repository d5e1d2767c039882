"""One request to GitHub, and its failures in our words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from vmrunner.integrations.github.errors import GithubAway, GithubError
from vmrunner.lib import units
from vmrunner.lib.whole_answers import bound, within
from vmrunner.services.client import certificates

if TYPE_CHECKING:
    import httpx2

CONNECT: Final = 10.0  # seconds
ANSWER: Final = 75.0  # … a poll for a message is answered after 50
LIMITED: Final = 60.0  # … that a limit lasts which does not say how long
LONGEST_LIMIT: Final = 3600.0  # … that any lasts: GitHub's begin anew each hour
ANSWER_BYTES: Final = 16 << 20  # bytes of an answer
WHOLE: Final = 2 * ANSWER  # seconds that all of it may take, its head too
_TOLD: Final = 300  # characters of an answer that is told
_MASK: Final = "***"  # for our token, where an answer repeats it: so do proxies that debug
_BOM: Final = b"\xef\xbb\xbf"


class GithubHttp:
    """Requests to GitHub, and to the service that it names. Safe in threads. `clock` is this
    host's, which need not be right. `transport` is another way than the network, for tests."""

    def __init__(
        self, *, now: Callable[[], float], transport: httpx2.BaseTransport | None = None
    ) -> None:
        import httpx2

        self.clock = now
        self._ahead = 0.0  # seconds by which GitHub's is
        self._client: httpx2.Client = bound(
            httpx2.Client(
                headers={"User-Agent": f"vmrunner/{version('vmrunner')}"},
                timeout=httpx2.Timeout(ANSWER, connect=CONNECT),
                verify=certificates.trusted(),
                follow_redirects=False,
                transport=transport,
            )
        )

    def now(self) -> float:
        """Return the time at GitHub, as its last answer told it: ends of tokens and of limits are
        of that."""
        return self.clock() + self._ahead

    def ask(
        self,
        method: str,
        url: str,
        *,
        bearer: str,
        scheme: str = "Bearer",
        body: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the decoded answer; None when it is empty. Raises GithubError."""
        import httpx2

        try:
            target = httpx2.URL(url).copy_merge_params(dict(params or {}))
        except httpx2.InvalidURL:
            raise GithubAway("GitHub named an address that is none") from None
        if target.scheme != "https" and not units.is_loopback(target.host):
            raise GithubError(
                f"{target.host}: tokens would cross the network in the clear",
                hint="a server of GitHub's behind a proxy is to know its own https:// address",
            )
        content = {} if body is None else {"json": body}
        head = {"Authorization": _shown(scheme, bearer, target), "Accept": "application/json"}
        try:
            with (
                within(WHOLE),
                self._client.stream(
                    method, target, headers={**head, **(headers or {})}, **content
                ) as answer,
            ):
                self._note_clock(answer)
                data = _read(answer).removeprefix(_BOM)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise GithubAway(f"{target.host}: {error or type(error).__name__}") from None
        if answer.status_code >= 300:
            raise self._failure(method, answer, data, bearer)
        if answer.status_code in (202, 204) or not data:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise GithubAway(f"{_where(method, answer)} answered what is no JSON") from None

    def _note_clock(self, answer: httpx2.Response) -> None:
        try:
            date = parsedate_to_datetime(answer.headers.get("date", ""))
            self._ahead = date.timestamp() - self.clock()
        except (OverflowError, ValueError):
            return  # it tells no time

    def _failure(
        self, method: str, answer: httpx2.Response, data: bytes, bearer: str
    ) -> GithubError:
        status = answer.status_code
        kind, message = _error_in(data)
        shown = _printed(message.replace(bearer, _MASK))
        text = f"{_where(method, answer)} answered {status}" + (f": {shown}" if shown else "")
        if (wait := self._wait(answer, message)) is not None or status >= 500:
            return GithubAway(text, status=status, wait=wait and min(wait, LONGEST_LIMIT))
        return GithubError(text, status=status, kind=kind)

    def _wait(self, answer: httpx2.Response, message: str) -> float | None:
        """Return in how many seconds it may be asked again; None where it is no limit, or does not
        say."""
        head, now = answer.headers, self.now()
        if (after := head.get("retry-after")) is not None:
            return _seconds(after, now)
        if answer.status_code not in (403, 429):
            return None
        reset = head.get("x-ratelimit-reset", "")
        if head.get("x-ratelimit-remaining") == "0" and reset.isdecimal():
            return max(0.0, float(reset) - now) + 1
        if answer.status_code == 429 or "rate limit" in message.lower():
            return LIMITED
        return None


def _shown(scheme: str, bearer: str, target: httpx2.URL) -> str:
    """The header that shows a token. Raises GithubError for one that no header can hold: the
    library would tell it with the token in its words."""
    if not bearer.isascii() or not bearer.isprintable():
        raise GithubError(f"{target.host}: its token is not one line of ASCII")
    return f"{scheme} {bearer}"


def _read(answer: httpx2.Response) -> bytes:
    """Return all of an answer. Raises GithubAway for one without an end."""
    data = bytearray()
    for piece in answer.iter_bytes():
        data += piece
        if len(data) > ANSWER_BYTES:
            raise GithubAway(f"{answer.url.host}: an answer of no end")
    return bytes(data)


def _where(method: str, answer: httpx2.Response) -> str:
    """Name a request. What may hold a token is left out: its query and its user."""
    return f"{method} {answer.url.copy_with(query=None, userinfo=b'')}"


def _error_in(data: bytes) -> tuple[str, str]:
    """The kind and the message of an answer's error, as it came."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return "", data.decode(errors="replace")
    if not isinstance(document, dict):
        return "", ""
    kind = str(document.get("typeName") or document.get("typeKey") or "")
    return kind.partition(",")[0].rpartition(".")[2], str(document.get("message") or "")


def _printed(words: str) -> str:
    """Return words of a server as one line that a log may have."""
    return "".join(c if c.isprintable() else " " for c in words[:_TOLD]).strip()


def _seconds(text: str, now: float) -> float:
    """Seconds that a Retry-After asks for, as a number or as a date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (OverflowError, ValueError):
        return LIMITED
    return max(0.0, until.timestamp() - now)


def timestamp(text: str) -> float:
    """Return an ISO time as epoch seconds. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
