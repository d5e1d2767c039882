"""Identity at GitHub: a personal token, or an App whose tokens last an hour; and the token of the
Actions service, which is had by it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import jwt

from vmrunner.errors import ConfigError
from vmrunner.integrations.github.errors import GithubAway, GithubError, understood
from vmrunner.integrations.github.http import GithubHttp, timestamp

if TYPE_CHECKING:
    from vmrunner.config.forges import ForgeTarget, GithubSettings

EARLY: Final = 120.0  # seconds before its end a token is not used any more
LEAST: Final = 60.0  # … that it is used all the same, unless it is refused: a clock may be wrong
_BACK: Final = 60.0  # … that a clock of ours may be early
_JWT: Final = 540.0  # … of an App's own proof; GitHub takes 600 at most


class GithubIdentity(Protocol):
    """Proof for the REST API."""

    def bearer(self) -> str:
        """Return a token that lasts for a while."""

    def forget(self) -> None:
        """Use the last one no more: it was refused."""


@dataclass(frozen=True, slots=True)
class Term:
    """Time for which a token is used. `received_at` is by our clock, `until` by GitHub's."""

    received_at: float
    until: float

    def over(self, http: GithubHttp) -> bool:
        """True if another is to be had."""
        fresh = 0 <= http.clock() - self.received_at < LEAST
        return not fresh and http.now() >= self.until - EARLY


class PersonalToken:
    """A token made by hand."""

    def __init__(self, token: str) -> None:
        """Raises ConfigError, which repeats nothing of it."""
        self._token = token.strip()
        if not self._token.isascii() or not self._token.isprintable():
            raise ConfigError(
                "github.token: not one line of ASCII", hint="the token alone, as GitHub shows it"
            )

    def bearer(self) -> str:
        return self._token

    def forget(self) -> None:
        """Do nothing: no other can be had."""


class AppIdentity:
    """A GitHub App, installed there."""

    def __init__(
        self, http: GithubHttp, api: str, *, app: str, installation: int, key: str
    ) -> None:
        self._http = http
        self._url = f"{api}/app/installations/{installation}/access_tokens"
        self._app = app
        self._key = key
        self._token = ""
        self._term: Term | None = None

    def bearer(self) -> str:
        if self._term is None or self._term.over(self._http):
            found = self._http.ask("POST", self._url, bearer=self._proof())
            with understood("a token"):
                token, until = str(found["token"]), timestamp(found["expires_at"])
            self._token, self._term = token, Term(self._http.clock(), until)
        return self._token

    def forget(self) -> None:
        self._term = None

    def _proof(self) -> str:
        issued = int(self._http.now() - _BACK)
        claims = {"iat": issued, "exp": issued + int(_JWT), "iss": self._app}
        try:
            return jwt.encode(claims, self._key, algorithm="RS256")
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise ConfigError(
                f"github.private_key: it is no RSA key in PEM: {error}",
                hint="the file that GitHub made for the App",
            ) from None


@dataclass(frozen=True, slots=True)
class ServiceAccess:
    """The Actions service of a place, and a token for it."""

    url: str
    token: str
    term: Term


class ServiceTokens:
    """Tokens of the Actions service, each had anew before the last is over. Safe in threads."""

    def __init__(self, http: GithubHttp, place: ForgeTarget, identity: GithubIdentity) -> None:
        self._http = http
        self._place = place
        self._identity = identity
        self._lock = threading.Lock()
        self._last: ServiceAccess | None = None

    def access(self) -> ServiceAccess:
        """Return one that lasts for a while."""
        with self._lock:
            if self._last is None or self._last.term.over(self._http):
                self._last = self._new()
            return self._last

    def forget(self, access: ServiceAccess) -> None:
        """Use that one no more: it was refused."""
        with self._lock:
            if self._last == access:
                self._last = None

    def _new(self) -> ServiceAccess:
        api = self._place.api
        registration = self._registration(f"{api}/{self._place.path}/actions/runners")
        found = self._http.ask(
            "POST",
            f"{api}/actions/runner-registration",
            bearer=registration,
            scheme="RemoteAuth",
            body={"url": self._place.url, "runner_event": "register"},
        )
        with understood("a token of the Actions service"):
            url, token = str(found["url"]).rstrip("/"), str(found["token"])
        return ServiceAccess(url, token, Term(self._http.clock(), _end(token)))

    def _registration(self, runners: str) -> str:
        """Return a registration token. An identity that is refused is had anew, once."""
        for last in (False, True):
            try:
                bearer = self._identity.bearer()
                found = self._http.ask("POST", f"{runners}/registration-token", bearer=bearer)
                with understood("a token"):
                    return str(found["token"])
            except GithubError as error:
                if error.status != 401 or last:
                    raise _refused(error, self._place) from None
                self._identity.forget()
        raise AssertionError


def _end(token: str) -> float:
    """The end of a token of the service: a JWT of theirs, which we need not verify."""
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        return float(claims["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        raise GithubAway("the Actions service gave a token that does not say its end") from None


def _refused(error: GithubError, place: ForgeTarget) -> GithubError:
    """Say what a refusal of our identity means."""
    hints = {
        401: "github.token or github.private_key is over, revoked, or another's",
        403: "it needs the right to administer self-hosted runners",
        404: f"no {place.path}, or github.token may not see it",
    }
    if isinstance(error, GithubAway) or error.status not in hints:
        return error
    return GithubError(str(error), status=error.status, kind=error.kind, hint=hints[error.status])


def identity_of(settings: GithubSettings, place: ForgeTarget, http: GithubHttp) -> GithubIdentity:
    """The identity that the configuration names. Raises ConfigError."""
    if settings.token:
        return PersonalToken(settings.token_text())
    return AppIdentity(
        http,
        place.api,
        app=settings.app_id,
        installation=settings.installation_id,
        key=settings.key_text(),
    )
