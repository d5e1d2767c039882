"""Tokens at GitHub: had before the last is over, and anew once when one is refused."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import fake_github
from tests.support.fake_github import Answer, FakeGithub
from vmrunner.config import forges
from vmrunner.errors import ConfigError
from vmrunner.integrations.github.errors import GithubAway, GithubError
from vmrunner.integrations.github.http import GithubHttp
from vmrunner.integrations.github.identity import (
    EARLY,
    LEAST,
    AppIdentity,
    PersonalToken,
    ServiceTokens,
)
from vmrunner.providers.fake import Clock

PLACE = forges.target(fake_github.ORG)
DAY = 86_400.0
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()


class Place:
    def __init__(self, skew: float = 0.0, *, dated: bool = True) -> None:
        self.clock = Clock()
        self.github = FakeGithub(self.clock)
        self.github.dated = dated
        self.http = GithubHttp(now=lambda: self.clock() + skew, transport=self.github.transport())

    def app(self, key: str = PEM) -> AppIdentity:
        return AppIdentity(self.http, PLACE.api, app="Iv23", installation=7, key=key)

    def count(self, word: str) -> int:
        return len(self.github.paths(word))


def test_an_app_proves_itself_for_ten_minutes_at_most() -> None:
    place = Place()
    token = place.app().bearer()
    (request,) = place.github.paths("installations/7/access_tokens")
    claims = jwt.decode(
        request.bearer,
        KEY.public_key(),
        algorithms=["RS256"],
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims == {
        "iss": "Iv23",
        "iat": int(place.clock()) - 60,
        "exp": int(place.clock()) + 480,
    }
    assert token in place.github.personal


def test_a_key_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError, match=r"github\.private_key: it is no RSA key"):
        Place().app("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----").bearer()


def test_tokens_are_renewed_before_they_are_over() -> None:
    place = Place()
    tokens = ServiceTokens(place.http, PLACE, place.app())
    first = tokens.access()
    assert tokens.access() == first
    assert (place.count("runner-registration"), place.count("access_tokens")) == (1, 1)
    place.clock.advance(3600 - EARLY - 1)
    assert tokens.access() == first
    place.clock.advance(2)
    assert tokens.access() != first
    assert (place.count("runner-registration"), place.count("access_tokens")) == (2, 2)


@pytest.mark.parametrize("skew", [-DAY, DAY])
def test_a_clock_that_is_wrong_costs_no_token(skew: float) -> None:
    """GitHub's own clock says when its tokens are over, and what an App proves itself with."""
    place = Place(skew)
    tokens = ServiceTokens(place.http, PLACE, place.app())
    assert len({tokens.access().token for _ in range(50)}) == 1
    assert place.count("runner-registration") == 1
    place.clock.advance(3600 - EARLY + 2)
    assert len({tokens.access().token for _ in range(50)}) == 1
    assert place.count("runner-registration") == 2


def test_a_wrong_date_costs_a_token_a_minute() -> None:
    """Whoever stands between says that it is tomorrow, or GitHub does not say the time."""
    place = Place(DAY, dated=False)
    tokens = ServiceTokens(place.http, PLACE, PersonalToken(fake_github.TOKEN))
    for _ in range(10):
        for _ in range(50):
            tokens.access()
        place.clock.advance(LEAST + 1)
    assert place.count("runner-registration") == 10


@pytest.mark.parametrize("body", [None, [], {}, {"token_": "x"}, "x"])
@pytest.mark.parametrize("path", ["access_tokens", "registration-token", "runner-registration"])
def test_an_answer_that_is_no_token_is_asked_for_again(path: str, body: Any) -> None:
    place = Place()
    tokens = ServiceTokens(place.http, PLACE, place.app())
    place.github.next(path, Answer(200, body))
    with pytest.raises(GithubAway):
        tokens.access()
    assert tokens.access().url == fake_github.SERVICE


def test_an_identity_that_is_refused_is_had_anew_once() -> None:
    place = Place()
    tokens = ServiceTokens(place.http, PLACE, place.app())
    tokens.forget(tokens.access())
    place.github.personal.clear()  # an hour's token, revoked
    assert tokens.access().url == fake_github.SERVICE
    assert place.count("access_tokens") == 2
    with pytest.raises(GithubError, match="revoked") as caught:
        ServiceTokens(place.http, PLACE, PersonalToken("ghp_wrong")).access()
    assert caught.value.status == 401


def test_no_token_is_told_in_an_error() -> None:
    place = Place()
    with pytest.raises(GithubError) as caught:
        ServiceTokens(place.http, PLACE, PersonalToken("ghp_wrong")).access()
    assert "ghp_wrong" not in str(caught.value)
