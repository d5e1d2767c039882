"""People who log in to the page at their own issuer, and attacks on that."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import chromium
from tests.support.http_service import Service, only, service
from tests.support.oidc_provider import CLIENT, EC, RSA, SECRET, OidcProvider
from vmrunner.config.oidc import LoginRule
from vmrunner.config.settings import ServerSettings
from vmrunner.model import TokenScope
from vmrunner.server.oidc_login import LASTS, LoginAttempt
from vmrunner.services import login_checks

API = "/api/v1"
RULES: list[dict[str, Any]] = [
    {"match": {"groups": "owners"}, "scopes": ["admin"]},
    {"match": {"groups": "builders"}, "labels": {"team": "core"}, "builds": 7},
    {"match": {"email": "bob@example.org"}, "scopes": ["read"]},
]


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with contextlib.closing(OidcProvider()) as found:
        yield found


@pytest.fixture
def other() -> Iterator[OidcProvider]:
    with contextlib.closing(OidcProvider()) as found:
        yield found


@pytest.fixture
def http(
    provider: OidcProvider, other: OidcProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PROVIDER_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    shared = {
        "client_id": CLIENT,
        "client_secret": "PROVIDER_SECRET",
        "rules": RULES,
        "admins": True,
    }
    login = [
        {"name": "example", "issuer": provider.url, **shared},
        {"name": "other", "issuer": other.url, **shared},
    ]
    with service(tmp_path, server={"url": "http://127.0.0.1", "login": login}) as found:
        settings = found.parts.settings()

        def reached() -> Any:
            server = settings.server.model_copy(update={"url": found.url})
            return settings.model_copy(update={"server": server})

        found.parts = replace(found.parts, settings=reached)
        found.use(found.parts)
        found.runner._host.ensure("fake")
        yield found


class Person:
    """A browser without manners, one step after the other."""

    def __init__(self, http: Service) -> None:
        self.client = http.client("")
        self.client.headers["Accept"] = "text/html"

    def asks(self, target: str = "/", name: str = "example") -> str:
        """Begin. Return where the issuer asks who it is."""
        answer = self.client.get(f"/login/{name}", params={"next": target})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def answered(self, address: str) -> str:
        """Be known to the issuer. Return where it sends the browser."""
        return httpx2.get(address).headers["location"]

    def comes_back(self, address: str) -> httpx2.Response:
        return self.client.get(address)

    def logs_in(self, target: str = "/", name: str = "example") -> httpx2.Response:
        return self.comes_back(self.answered(self.asks(target, name)))

    @property
    def is_known(self) -> bool:
        return self.client.get("/").status_code == 200


def refused(person: Person, answer: httpx2.Response, status: int, words: str) -> None:
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert not person.is_known


# --- as it should be ------------------------------------------------------------------------------


def test_a_person_logs_in_in_a_browser(
    http: Service, provider: OidcProvider, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        page = _fresh(browser)
        page.goto(f"{http.url}/vms?gone=true")
        page.get_by_role("link", name="Log in with example").click()
        page.wait_for_url(f"{http.url}/vms?gone=true")
        expect(page.locator("header")).to_contain_text("ada@example.org")
        cookies = {c["name"]: c for c in page.context.cookies()}
        assert [name for name in cookies if "attempt" in name] == [], "it is used up"
        (login,) = cookies.values()
        assert (login["httpOnly"], login["sameSite"]) == (True, "Strict")
        assert 7.9 * 3600 < login["expires"] - time.time() <= 8 * 3600
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login?**")
        assert page.request.get(f"{http.url}/vms").status == 401


def _fresh(browser: Browser) -> Any:
    return browser.new_context().new_page()


def test_who_logs_in_is_a_name_everywhere(http: Service, provider: OidcProvider) -> None:
    person = Person(http)
    assert person.logs_in("/vms").status_code == 200
    page = person.client.get("/").text
    csrf = page.partition('data-csrf="')[2].partition('"')[0]
    headers = {"X-CSRF-Token": csrf}
    answer = person.client.post(f"{API}/builds", json={"steps": ["say x"]}, headers=headers)
    build = only(answer)
    assert build["labels"] == {"team": "core"}
    assert build["actor"] == f"oidc:{provider.url}#248"
    assert "ada@example.org" in person.client.get(f"/builds/{build['id']}").text
    (listed,) = person.client.get(f"{API}/builds").json()["items"]
    assert listed["actor_name"] == "ada@example.org"
    for name in ("ada@example.org", "248", f"oidc:{provider.url}#248"):
        found = person.client.get(f"{API}/builds", params={"actor": name}).json()["items"]
        assert [item["id"] for item in found] == [build["id"]], name
    assert "ada@example.org" in http.client().get("/actions", headers={"Accept": "text/html"}).text
    (action,) = [a for a in http.app.ledger.actions.latest() if a.verb == "login"]
    assert (action.actor, action.detail) == (f"oidc:{provider.url}#248", provider.url)
    document = next(
        item
        for item in http.client().get(f"{API}/actions").json()["items"]
        if item["verb"] == "login"
    )
    assert (document["actor"], document["actor_name"]) == (action.actor, "ada@example.org")
    cancelled = person.client.post(f"{API}/builds/{build['id']}/cancel", headers=headers)
    assert cancelled.status_code == 200
    stream = person.client.get(
        f"{API}/builds/{build['id']}/logs", headers={"Accept": "text/event-stream"}
    ).text
    ended = json.loads(stream.partition("event: end\ndata: ")[2].partition("\n")[0])
    assert ended["actor_name"] == "ada@example.org"
    again = only(person.client.post(f"/builds/{build['id']}/again", headers=headers))
    assert again["actor_name"] == "ada@example.org"
    (token,) = [t for t in http.app.ledger.tokens.list() if t.actor.startswith("oidc:")]
    assert (token.scopes, token.quota.builds) == ({TokenScope.SUBMIT, TokenScope.READ}, 7)


def test_a_new_name_is_the_one_that_counts(http: Service, provider: OidcProvider) -> None:
    Person(http).logs_in()
    provider.person["email"] = "ada.l@example.org"
    person = Person(http)
    person.logs_in()
    assert "ada.l@example.org" in person.client.get("/").text


def test_an_owner_may_what_an_admin_may(http: Service, provider: OidcProvider) -> None:
    provider.person["groups"] = ["owners", "builders"]
    person = Person(http)
    person.logs_in()
    assert person.client.get("/tokens").status_code == 200


def test_what_a_provider_may_say_lets_in(http: Service, provider: OidcProvider) -> None:
    for provider.forged in (
        {"aud": [CLIENT, "another"], "azp": CLIENT},
        {"azp": CLIENT},
        {"exp": -40},
        {"iat": 40},
    ):
        person = Person(http)
        assert person.logs_in().status_code == 200
        assert person.is_known


def test_a_key_of_another_kind_signs_as_well(http: Service, provider: OidcProvider) -> None:
    provider.signed = {"key": EC, "algorithm": "ES256", "headers": {"kid": "two"}}
    assert Person(http).logs_in().status_code == 200


def test_a_provider_may_want_our_secret_in_the_form(http: Service, provider: OidcProvider) -> None:
    provider.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert Person(http).logs_in().status_code == 200


def test_another_site_begins_no_login(http: Service) -> None:
    """Each begins with a cookie: a browser with many of them is refused."""
    person = Person(http)
    foreign = {"Sec-Fetch-Site": "cross-site"}
    answer = person.client.get("/login/example?next=/vms", headers=foreign)
    assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    assert "/login/example?next=/vms" in answer.text


def test_two_tabs_log_in_beside_each_other(http: Service) -> None:
    person = Person(http)
    first, second = person.asks("/vms"), person.asks("/caches")
    assert person.comes_back(person.answered(first)).status_code == 200
    assert "/caches" in person.comes_back(person.answered(second)).text


def test_a_login_ends_with_its_token(http: Service) -> None:
    person = Person(http)
    person.logs_in()
    (token,) = [t for t in http.app.ledger.tokens.list() if t.actor.startswith("oidc:")]
    http.app.ledger.tokens.revoke(token.id, 1.0)
    assert not person.is_known


# --- attacks --------------------------------------------------------------------------------------


def test_an_answer_that_another_browser_began_is_refused(http: Service) -> None:
    """Otherwise an attacker logs a victim in as himself."""
    attacker, victim = Person(http), Person(http)
    address = attacker.answered(attacker.asks())
    refused(victim, victim.comes_back(address), 403, "not begun in this browser")


def test_a_wrong_state_is_refused(http: Service, provider: OidcProvider) -> None:
    person = Person(http)
    address = person.asks()
    state = parse_qs(urlsplit(address).query)["state"][0]
    provider.answer = {"state": state[:-2] + ("xy" if state[-2:] != "xy" else "yx")}
    refused(person, person.comes_back(person.answered(address)), 403, "not begun in this browser")
    provider.answer = {"state": ""}
    refused(person, person.comes_back(person.answered(person.asks())), 403, "not begun")


def test_an_answer_that_comes_again_is_refused(http: Service, provider: OidcProvider) -> None:
    """By the provider, whose code is used up, and by us, should a provider not care."""
    person = Person(http)
    address = person.answered(person.asks())
    kept = dict(person.client.cookies)
    codes = dict(provider.codes)
    assert person.comes_back(address).status_code == 200
    for provider.codes in ({}, codes):
        thief = Person(http)
        thief.client.cookies.update(kept)
        answer = thief.comes_back(address)
        assert answer.status_code in (403, 502), answer.text
        assert not thief.is_known
    assert provider.faults == ["invalid_grant"]


FORGED: tuple[dict[str, Any], ...] = (
    {"nonce": "of another login"},
    {"nonce": None},
    {"nonce": 7},
    {"aud": "another"},
    {"aud": ["another"]},
    {"aud": None},
    {"aud": [CLIENT, "another"]},
    {"azp": "another"},
    {"aud": [CLIENT, "another"], "azp": "another"},
    {"iss": "https://evil.example.org"},
    {"exp": -61},
    {"exp": None},
    {"iat": 900},
    {"nbf": 900},
    {"sub": None},
    {"sub": "a\nb"},
)


def test_a_forged_identity_is_refused(http: Service, provider: OidcProvider) -> None:
    for provider.forged in FORGED:
        person = Person(http)
        refused(person, person.logs_in(), 401, "cannot be believed")
    assert not [t for t in http.app.ledger.tokens.list() if t.actor.startswith("oidc:")]


def test_another_signature_is_refused(http: Service, provider: OidcProvider) -> None:
    for provider.signed in (
        {"key": None, "algorithm": "none", "headers": {"kid": "one"}},
        {"key": "x" * 64, "algorithm": "HS256", "headers": {"kid": "one"}},
        {"key": RSA, "algorithm": "RS512", "headers": {"kid": "one"}},
        {"key": EC, "algorithm": "ES256", "headers": {"kid": "one"}},
        {"key": RSA, "algorithm": "RS256", "headers": {"kid": "unknown"}},
        {"key": RSA, "algorithm": "RS256"},
    ):
        person = Person(http)
        refused(person, person.logs_in(), 401, "cannot be believed")


def test_one_provider_does_not_pass_for_another(
    http: Service, provider: OidcProvider, other: OidcProvider
) -> None:
    """Mix-up: the browser began at one, and brings another's code."""
    person = Person(http)
    address = person.answered(person.asks())
    elsewhere = address.replace("/login/example/", "/login/other/")
    refused(person, person.comes_back(elsewhere), 403, "not begun in this browser")
    provider.answer = {"iss": other.url}
    refused(person, person.logs_in(), 403, "Another issuer answers")
    assert other.faults == [], "it was shown no code"


def test_a_provider_that_refuses_is_told_plainly(http: Service, provider: OidcProvider) -> None:
    for provider.answer, words in (
        ({"error": "access_denied"}, "You were not let in"),
        ({"error": "<script>alert(1)</script>"}, "&lt;script&gt;"),
        ({"error": "x\ny"}, "unprintable"),
        ({"code": ""}, "does not confirm"),
    ):
        person = Person(http)
        found = person.logs_in()
        assert words in found.text
        assert "<script>" not in found.text
        assert not person.is_known


def test_whom_no_rule_is_for_stays_out(http: Service, provider: OidcProvider) -> None:
    bob = {"groups": [], "email": "bob@example.org"}
    for claims in (
        {"groups": ["builder", "builders2"]},
        {"groups": "[builders]"},
        {"groups": None},
        {**bob, "email_verified": False},
        {**bob, "email_verified": "true"},
        {**bob, "email": "BOB@example.org"},
    ):
        provider.forged = claims
        somebody = Person(http)
        refused(somebody, somebody.logs_in(), 403, "lets no such person in")
    provider.forged = bob
    assert Person(http).logs_in().status_code == 200


def test_an_address_that_nobody_verified_makes_no_label(
    http: Service, provider: OidcProvider
) -> None:
    rule = LoginRule(match={"groups": "people"}, labels={"owner": "{email}"})
    former = http.parts.settings

    def changed() -> Any:
        server = former().server
        login = [issuer.model_copy(update={"rules": [rule]}) for issuer in server.login]
        return former().model_copy(update={"server": server.model_copy(update={"login": login})})

    http.use(replace(http.parts, settings=changed))
    http.runner._host.ensure("fake")
    provider.forged = {"groups": ["people"], "email": "bob", "email_verified": False}
    somebody = Person(http)
    refused(somebody, somebody.logs_in(), 403, "label owner cannot be made")
    provider.forged["email_verified"] = True
    assert Person(http).logs_in().status_code == 200


def test_a_wrong_secret_of_ours_lets_nobody_in(
    http: Service, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_SECRET", "wrong")
    person = Person(http)
    refused(person, person.logs_in(), 502, "does not confirm")
    assert provider.faults == ["invalid_client"]
    monkeypatch.delenv("PROVIDER_SECRET")
    refused(person, person.logs_in(), 503, "its log says why")


def test_a_login_that_took_too_long_is_refused(http: Service) -> None:
    person = Person(http)
    http.clock[:] = [time.time() - LASTS]
    address = person.answered(person.asks())
    http.clock.clear()
    refused(person, person.comes_back(address), 403, "longer than ten minutes")


@pytest.mark.parametrize(
    "document",
    [
        {"token_endpoint": "http://127.0.0.2:1/token"},
        {"token_endpoint": "https://evil.example.org/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
        {"jwks_uri": "http://127.0.0.2:1/keys"},
        {"issuer": "https://evil.example.org"},
    ],
)
def test_a_provider_is_nowhere_but_at_its_own_host(
    http: Service, provider: OidcProvider, document: dict[str, Any]
) -> None:
    provider.document = document
    person = Person(http)
    answer = person.client.get("/login/example")
    if answer.status_code == 303:
        answer = person.comes_back(person.answered(answer.headers["location"]))
    refused(person, answer, 503, "cannot be reached")


def test_a_persons_login_leads_nowhere_else(http: Service) -> None:
    evil = ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)")
    for target in (*evil, "/\t/x"):
        assert 'content="0;url=/"' in Person(http).logs_in(target).text


def test_doctor_says_whether_people_can_log_in(
    http: Service, provider: OidcProvider, other: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> list[tuple[str, str]]:
        checks = login_checks.findings(http.parts.settings().server)
        return [(finding.level.value, finding.message) for finding in checks]

    other.document = {"code_challenge_methods_supported": ["plain"]}
    well, ill = found()
    assert (well[0], f"{http.url}/login/example/callback" in well[1]) == ("ok", True)
    assert (ill[0], "not by S256" in ill[1]) == ("warning", True)
    other.document = {"token_endpoint": "https://evil.example.org/token"}
    assert "which is not its own" in found()[1][1]
    monkeypatch.delenv("PROVIDER_SECRET")
    assert found()[0] == (
        "error", "server.login.example.client_secret: PROVIDER_SECRET is not set"
    )  # fmt: skip


def test_doctor_tells_of_a_rule_that_lets_in_all(provider: OidcProvider) -> None:
    matches = ({"iss": provider.url}, {"aud": CLIENT, "azp": CLIENT}, {"iss": "x", "hd": "y.org"})
    rules = [{"match": match, "scopes": ["read"]} for match in matches]
    login = [{"name": "example", "issuer": provider.url, "client_id": CLIENT, "rules": rules}]
    server = ServerSettings.model_validate({"url": "https://a.example.org", "login": login})
    open_to_all = [f.message for f in login_checks.findings(server) if "everybody" in f.message]
    assert [message.partition(" lets")[0] for message in open_to_all] == [
        "rule 1 of example", "rule 2 of example",
    ]  # fmt: skip


def test_cookies_that_we_did_not_make_begin_nothing(http: Service) -> None:
    person = Person(http)
    state = "abcdefghijklmnop"
    attempt = asdict(LoginAttempt.new("example", "/", time.time()))
    odd = [{**attempt, name: "\ud800"} for name in attempt]
    odd += [attempt | {"began_at": at} for at in (None, float("nan"), 10**400)]
    forged = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode() for each in odd]
    deep = base64.urlsafe_b64encode(b"[" * 30_000).decode()
    for value in ("", "x", "e30=", "W10=", "eyJpc3N1ZXIiOiAxfQ==", "=" * 3000, deep, *forged):
        headers = {"Cookie": f"vmrunner_attempt_{state[:12]}={value}"}
        path = f"/login/example/callback?state={state}&code=x"
        assert person.client.get(path, headers=headers).status_code == 403, value
    assert person.client.get("/login/nobody").status_code == 404


# --- what cannot be configured --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"admins": False}, "admins is false"),
        ({"name": "A b"}, "not a name"),
        ({"ask_for": ["email"]}, "openid"),
        ({"issuer": "http://id.example.org"}, "https"),
        ({"client_secret": "s3cret value"}, "neither a variable"),
        ({"rules": [{"match": {"sub": "x"}, "scopes": ["submit"]}]}, "without read"),
        ({"rules": [{"match": {}, "scopes": ["read"]}]}, "match"),
        (
            {"rules": [{"match": {"sub": "x"}, "labels": {"a": "b"}, "scopes": ["admin"]}]},
            "admin sees all",
        ),
    ],
)
def test_a_login_that_would_be_unsafe_is_refused(change: dict[str, Any], words: str) -> None:
    login: dict[str, Any] = {
        "name": "example", "issuer": "https://id.example.org", "client_id": "x", "rules": RULES,
        "admins": True, **change,
    }  # fmt: skip
    with pytest.raises(ValueError, match=words):
        ServerSettings.model_validate({"url": "https://builds.example.org", "login": [login]})


@pytest.mark.parametrize(
    ("url", "words"), [("", "set it"), ("http://builds.example.org", "without TLS")]
)
def test_a_login_needs_an_address_to_come_back_to(url: str, words: str) -> None:
    login = {"name": "a", "issuer": "https://id.example.org", "client_id": "x"}
    with pytest.raises(ValueError, match=words):
        ServerSettings.model_validate({"url": url, "login": [login | {"rules": RULES[1:]}]})
