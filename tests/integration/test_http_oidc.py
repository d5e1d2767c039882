"""The exchange of a CI system's identity for a token, with an issuer on loopback."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.http_service import TENANT, Service, only, service
from tests.support.scripted_app import wait_until
from vmrunner.config.oidc import OidcIssuer
from vmrunner.config.settings import ServerSettings
from vmrunner.model import Reason, TokenQuota
from vmrunner.server.oidc import CALLERS, IssuerKeys
from vmrunner.server.problems import HttpProblem
from vmrunner.services.client import issuer_document

API = "/api/v1"
AUDIENCE = "https://builds.example.org"
SECOND = "https://second.example.org"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """An issuer that says what a test wants."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"one": RSA, "two": EC}
        self.requests: list[str] = []
        self.document: dict[str, Any] = {}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests.append(self.path)
                body = json.dumps(issuer.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> dict[str, Any]:
        if path.endswith("openid-configuration"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.document}
        listed = []
        for name, key in self.keys.items():
            kind = jwt.algorithms.RSAAlgorithm if name == "one" else jwt.algorithms.ECAlgorithm
            listed.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": name})
        return {"keys": listed}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    found = Issuer()
    yield found
    found.close()


@pytest.fixture
def http(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    rules = [
        {
            "match": {"repository": "org/app", "ref": "refs/heads/main"},
            "labels": {"repository": "{repository}"},
            "builds": 2,
        },
        {"match": {"repository": "org/docs"}, "labels": {"team": "docs"}, "scopes": ["read"]},
        {"match": {"repository": "org/debug"}, "labels": {"team": "debug"}, "scopes": ["enter"]},
    ]
    here = {"issuer": issuer.url, "audience": AUDIENCE, "rules": rules}
    second = here | {"audience": SECOND, "rules": [rules[0] | {"labels": {"team": "second"}}]}
    server = {"oidc": [here, second]}
    with service(tmp_path, server=server) as found:
        yield found


def identity(issuer: Issuer, key: Any = RSA, name: str = "one", **values: Any) -> str:
    now = time.time()
    claims = {
        "iss": issuer.url, "aud": AUDIENCE, "sub": "repo:org/app", "iat": now, "exp": now + 300,
        "repository": "org/app", "ref": "refs/heads/main", **values,
    }  # fmt: skip
    algorithm = "ES256" if name == "two" else "RS256"
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": name})


def hashed(claims: dict[str, Any], secret: str) -> str:
    """A token whose "secret" is the issuer's public key. No library makes one."""
    parts = [{"alg": "HS256", "typ": "JWT", "kid": "one"}, claims]
    text = ".".join(plain(json.dumps(part).encode()) for part in parts)
    mark = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{plain(mark)}"


def plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def exchange(http: Service, shown: str) -> Any:
    return http.client("").post(f"{API}/token", json={"jwt": shown})


def test_a_rule_lets_an_identity_enter(http: Service, issuer: Issuer) -> None:
    """If it says so: none does by itself."""
    answer = exchange(http, identity(issuer, RSA, "one", repository="org/debug"))
    assert (answer.status_code, answer.json()["scopes"]) == (201, ["enter"])
    client = http.client(answer.json()["token"])
    assert client.get(f"{API}/builds").status_code == 403
    assert client.get(f"{API}/builds/b-1/terminal").status_code == 404


@pytest.mark.parametrize(("key", "name"), [(RSA, "one"), (EC, "two")])
def test_an_identity_becomes_a_tenant_for_an_hour(
    http: Service, issuer: Issuer, key: Any, name: str
) -> None:
    answer = exchange(http, identity(issuer, key, name))
    assert answer.status_code == 201, answer.text
    assert answer.json()["labels"] == {"repository": "org/app"}
    assert answer.json()["scopes"] == ["read", "submit"]
    client = http.client(answer.json()["token"])
    build = only(client.post(f"{API}/builds", json={"steps": ["say x"]}))
    assert build["labels"] == {"repository": "org/app"}
    assert http.app.ledger.builds.get(build["id"]).actor == f"oidc:{issuer.url}#repo:org/app"
    (token,) = http.app.ledger.tokens.list()
    assert token.expires_at is not None
    assert token.expires_at - token.created_at == 3600.0
    assert token.quota.builds == 2
    (action,) = http.app.ledger.actions.latest()
    whole = f"oidc:{issuer.url}#repo:org/app"
    assert action[1:] == (whole, "token-exchange", token.id, issuer.url)


def test_each_audience_of_an_issuer_has_its_rules(http: Service, issuer: Issuer) -> None:
    answer = exchange(http, identity(issuer, aud=SECOND))
    assert (answer.status_code, answer.json()["labels"]) == (201, {"team": "second"})


def test_one_audience_twice_is_refused() -> None:
    declared: dict[str, Any] = {"issuer": "https://i.example.org", "audience": "a"}
    declared["rules"] = [{"match": {"sub": "x"}, "labels": {"a": "b"}}]
    with pytest.raises(ValueError, match=r"https://i\.example\.org for a is there twice"):
        ServerSettings.model_validate({"oidc": [declared, declared]})


@pytest.mark.parametrize(
    "values",
    [
        {"aud": "https://other.example.org"},
        {"aud": [AUDIENCE, "https://other.example.org"]},
        {"aud": None},
        {"iss": "https://other.example.org"},
        {"exp": 1.0},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": time.time() + 9000},
        {"iat": time.time() + 9000},
        {"sub": None},
    ],
)
def test_what_is_not_proved_is_refused(
    http: Service, issuer: Issuer, values: dict[str, Any]
) -> None:
    answer = exchange(http, identity(issuer, **values))
    assert answer.status_code == 401, answer.text
    assert http.app.ledger.tokens.list() == []


@pytest.mark.parametrize(
    "values",
    [
        {"repository": "org/other"},
        {"repository": "org/app2"},
        {"repository": "org"},
        {"ref": "refs/heads/main2"},
        {"ref": None},
        {"repository": ["org/app"]},
    ],
)
def test_rules_match_whole_values(http: Service, issuer: Issuer, values: dict[str, Any]) -> None:
    assert exchange(http, identity(issuer, **values)).status_code == 403


def test_no_other_signature_counts(http: Service, issuer: Issuer) -> None:
    public = json.dumps(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True))
    claims = jwt.decode(identity(issuer), options={"verify_signature": False})
    forged = [
        identity(issuer, OTHER),
        identity(issuer, RSA, "unknown"),
        hashed(claims, public),
        jwt.encode(claims, None, algorithm="none", headers={"kid": "one"}),
        jwt.encode(claims, RSA, algorithm="RS512", headers={"kid": "one"}),
        jwt.encode(claims, RSA, algorithm="RS256"),
        identity(issuer)[:-4] + "AAAA",
        "not a token",
        "x" * 20_000,
        f"{plain(b'{}')}.{plain(b'[' * 11_900)}.AA",
        f"{plain(b'[' * 11_900)}.{plain(b'{}')}.AA",
    ]
    assert [exchange(http, token).status_code for token in forged] == [401] * len(forged)


def test_an_unknown_key_is_looked_for_once_a_minute(http: Service, issuer: Issuer) -> None:
    http.clock[:] = [time.time()]
    for _ in range(3):
        exchange(http, identity(issuer, OTHER, "new"))
    assert issuer.requests == ["/.well-known/openid-configuration", "/keys"]
    issuer.keys["one"] = OTHER
    assert exchange(http, identity(issuer, OTHER)).status_code == 401
    http.clock[:] = [http.clock[0] + 61]
    exchange(http, identity(issuer, OTHER, "new"))
    assert len(issuer.requests) == 4
    assert exchange(http, identity(issuer, OTHER)).status_code == 201


def test_a_key_that_its_issuer_withdrew_counts_no_more(http: Service, issuer: Issuer) -> None:
    http.clock[:] = [time.time()]
    stolen = identity(issuer, exp=time.time() + 9000)
    assert exchange(http, stolen).status_code == 201
    issuer.keys.clear()
    http.clock[:] = [http.clock[0] + 3599]
    assert exchange(http, stolen).status_code == 201, "its issuer is not asked each time"
    http.clock[:] = [http.clock[0] + 1]
    assert exchange(http, stolen).status_code == 401


@pytest.mark.parametrize(
    "document",
    [{"jwks_uri": "http://127.0.0.2:1/keys"}, {"jwks_uri": "file:///etc/passwd"}, {"issuer": "x"}],
)
def test_keys_come_from_the_issuer_alone(
    http: Service, issuer: Issuer, document: dict[str, Any]
) -> None:
    issuer.document = document
    assert exchange(http, identity(issuer)).status_code == 401
    assert "/keys" not in issuer.requests


def test_keys_of_an_issuer_that_is_gone_count_a_day(
    http: Service, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    http.clock[:] = [began]
    shown = identity(issuer, exp=began + 2e5)
    assert exchange(http, shown).status_code == 201
    issuer.document = {"issuer": "somebody else"}  # no key comes from now on
    for at, status in ((86_399, 201), (86_400, 401)):
        http.clock[:] = [began + at]
        assert exchange(http, shown).status_code == status


def test_an_answer_that_drips_or_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No read of it takes long: only the whole does."""
    monkeypatch.setattr(issuer_document, "WHOLE", 0.3)
    monkeypatch.setattr(issuer_document, "BYTES", 1000)
    for piece in (b"x", b"x" * 600):
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

            def drip(piece: bytes = piece, listener: socket.socket = listener) -> None:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        connection.sendall(piece)
                        if select.select([connection], [], [], 0.05)[0] and not connection.recv(1):
                            return

            serving = pool.submit(drip)
            why = "no whole answer" if len(piece) == 1 else "larger than 1000 bytes"
            with pytest.raises(OSError, match=why):
                issuer_document.fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/")
            serving.result(20)


def test_issuers_are_no_actors_of_each_other(http: Service, issuer: Issuer) -> None:
    """One `sub` at two of them, and two that begin alike for 200 characters, are all somebody."""
    second = Issuer()
    try:
        rules = [{"match": {"iss": second.url}, "labels": {"team": "x"}, "usd_per_day": 5}]
        issuers = http.parts.settings().server.oidc
        issuers.append(
            OidcIssuer.model_validate({"issuer": second.url, "audience": "x", "rules": rules})
        )
        shown = [identity(issuer), identity(second, aud="x"), identity(issuer, sub="x" * 200)]
        shown.append(identity(issuer, sub="x" * 200 + "y"))
        for identity_token in shown:
            answer = exchange(http, identity_token)
            assert answer.status_code == 201, answer.text
    finally:
        second.close()
    assert len({token.actor for token in http.app.ledger.tokens.list()}) == 4
    assert exchange(http, identity(issuer, sub="a\nb")).status_code == 401


def test_a_rule_without_a_limit_lifts_no_other_issuers(http: Service) -> None:
    tokens = [
        http.client(http.token(TENANT, labels={"team": "x"}, actor=f"oidc:{url}#x", quota=quota))
        for url, quota in (("https://a", TokenQuota(usd_per_day=0.01)), ("https://b", TokenQuota()))
    ]
    body = {"steps": ["say x"], "ttl": "1h"}
    for client in (tokens[0], tokens[1]):
        build = only(client.post(f"{API}/builds", json=body))["id"]
    limited = only(tokens[0].post(f"{API}/builds", json=body))["id"]
    assert http.ended(build).reason is Reason.EXIT_CODE
    assert http.ended(limited).reason is Reason.BUDGET


def test_an_issuer_that_hangs_keeps_no_other_waiting(
    http: Service, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    keys, documents = IssuerKeys(time.time), issuer_document.fetch
    monkeypatch.setattr(
        issuer_document, "fetch", lambda url: ("deaf" in url and go.wait(20)) or documents(url)
    )
    with ThreadPoolExecutor(CALLERS) as pool:
        try:
            waiting = [pool.submit(keys.find, "https://deaf.invalid", "k") for _ in range(CALLERS)]
            deaf = keys._by_issuer
            wait_until(lambda: deaf["https://deaf.invalid"].callers._value == 0)
            with pytest.raises(HttpProblem, match="being fetched"):
                keys.find("https://deaf.invalid", "k")
            assert keys.find(issuer.url, "one") is not None
        finally:
            go.set()
        assert [future.result(20) for future in waiting] == [None] * CALLERS


def test_an_issuer_that_hangs_holds_up_no_other_request(
    http: Service, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, shown = threading.Event(), identity(issuer, OTHER, "unknown")
    answer = issuer.answer
    monkeypatch.setattr(issuer, "answer", lambda path: go.wait(20) and answer(path))
    client = http.client(timeout=5)

    def ask() -> None:
        http.client("").post(f"{API}/token", json={"jwt": shown})

    asking = [threading.Thread(target=ask) for _ in range(60)]
    try:
        for thread in asking:
            thread.start()
        threads = http.listener.app.state.oidc_threads.statistics
        wait_until(lambda: threads().borrowed_tokens == CALLERS)
        assert client.get(f"{API}/builds").status_code == 200
    finally:
        go.set()
        for thread in asking:
            thread.join()
