"""One request to GitHub, and its failures in our words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from vmrunner.integrations.github.errors import GithubAway, GithubError

if TYPE_CHECKING:
    import httpx

CONNECT: Final = 10.0  # seconds
ANSWER: Final = 75.0  # … a poll for a message is answered after 50
LIMITED: Final = 60.0  # … that a limit lasts which does not say how long
LONGEST: Final = 3600.0  # … that any lasts: GitHub's begin anew each hour
_TOLD: Final = 300  # characters of an answer that is told
_BOM: Final = b"\xef\xbb\xbf"


class GithubHttp:
    """Requests to GitHub, and to the service that it names. Safe in threads. `transport` is another
    way than the network, for tests."""

    def __init__(
        self, *, now: Callable[[], float], transport: httpx.BaseTransport | None = None
    ) -> None:
        import httpx

        self.now = now
        self._client = httpx.Client(
            headers={"User-Agent": f"vmrunner/{version('vmrunner')}"},
            timeout=httpx.Timeout(ANSWER, connect=CONNECT),
            follow_redirects=False,
            transport=transport,
        )

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
        import httpx

        head = {"Authorization": f"{scheme} {bearer}", "Accept": "application/json"}
        target = httpx.URL(url)
        if params:
            target = target.copy_merge_params(dict(params))
        content = {} if body is None else {"json": body}
        try:
            answer = self._client.request(
                method, target, headers={**head, **(headers or {})}, **content
            )
        except httpx.HTTPError as error:
            where = urlsplit(url).netloc
            raise GithubAway(f"{where}: {error or type(error).__name__}") from None
        if answer.status_code >= 300:
            raise self._failure(method, answer)
        data = answer.content.removeprefix(_BOM)
        if answer.status_code in (202, 204) or not data:
            return None
        try:
            return json.loads(data)
        except ValueError:
            raise GithubAway(f"{_where(method, answer)} answered what is no JSON") from None

    def _failure(self, method: str, answer: httpx.Response) -> GithubError:
        status = answer.status_code
        kind, said = _said(answer.content.removeprefix(_BOM))
        text = f"{_where(method, answer)} answered {status}" + (f": {said}" if said else "")
        if (wait := self._wait(answer, said)) is not None or status >= 500:
            return GithubAway(text, status=status, wait=wait and min(wait, LONGEST))
        return GithubError(text, status=status, kind=kind)

    def _wait(self, answer: httpx.Response, said: str) -> float | None:
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
        if answer.status_code == 429 or "rate limit" in said.lower():
            return LIMITED
        return None


def _where(method: str, answer: httpx.Response) -> str:
    """Name a request. Its query is left out, which may hold a token."""
    return f"{method} {answer.url.copy_with(query=None)}"


def _said(data: bytes) -> tuple[str, str]:
    """Return what an answer calls its error, and its words."""
    try:
        document = json.loads(data)
    except ValueError:
        return "", data.decode(errors="replace")[:_TOLD].strip()
    if not isinstance(document, dict):
        return "", ""
    kind = str(document.get("typeName") or document.get("typeKey") or "")
    return kind.partition(",")[0].rpartition(".")[2], str(document.get("message") or "")[:_TOLD]


def _seconds(text: str, now: float) -> float:
    """Return what a Retry-After means: seconds, or a date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return LIMITED
    return max(0.0, until.timestamp() - now)


def timestamp(text: str) -> float:
    """Return an ISO time as epoch seconds. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
