"""A stand-in OpenID provider on loopback. It checks what a client sends as OpenID Connect Core 1.0,
3.1.2 and 3.1.3 (https://openid.net/specs/openid-connect-core-1_0.html) and RFC 7636 (PKCE) say, and
answers what a test wants. Read on 2026-12-01: of the first its opening and, as others quote them,
the checks of identity tokens (3.1.3.7)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
CLIENT, SECRET = "vmrunner", "s3cret/+:"


class OidcProvider:
    """`person`: claims of whoever logs in. `forged`: claims that its identity token has otherwise
    (None: not at all; times beside now); `signed`: how that is signed; `answer`: what the browser
    brings instead."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {"sub": "248", "email": "ada@example.org"}
        self.person |= {"email_verified": True, "groups": ["builders", "readers"]}
        self.forged: dict[str, Any] = {}
        self.signed: dict[str, Any] = {"key": RSA, "algorithm": "RS256", "headers": {"kid": "one"}}
        self.answer: dict[str, str] = {}
        self.document: dict[str, Any] = {}
        self.secret = SECRET
        self.codes: dict[str, dict[str, str]] = {}
        self.faults: list[str] = []  # of requests for a token
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                place = urlsplit(self.path)
                if place.path == "/authorize":
                    query = {k: v[0] for k, v in parse_qs(place.query).items()}
                    self.send_response(302)
                    self.send_header("Location", provider.authorized(query))
                    self.end_headers()
                elif place.path == "/keys":
                    self._say(200, provider.keys())
                else:
                    self._say(200, provider.discovery())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {k: v[0] for k, v in parse_qs(body).items()}
                self._say(*provider.token(form, self.headers.get("Authorization", "")))

            def _say(self, status: int, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            **self.document,
        }

    def keys(self) -> dict[str, Any]:
        rsa_key = jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True)
        ec_key = jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key(), as_dict=True)
        return {"keys": [{**rsa_key, "kid": "one"}, {**ec_key, "kid": "two"}]}

    def authorized(self, query: dict[str, str]) -> str:
        """Where the browser of a person who is logged in here goes: back, with a code."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert "openid" in query["scope"].split()
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.url, **self.answer}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def token(self, form: dict[str, str], basic: str) -> tuple[int, dict[str, Any]]:
        """Answer a request for a token. A code counts once."""
        request = self.codes.pop(form.get("code", ""), None)
        shown = base64.b64decode(basic.partition(" ")[2]).decode()
        name, _, secret = (unquote_plus(word) for word in shown.partition(":"))
        if "token_endpoint_auth_methods_supported" in self.document:
            name, secret = form["client_id"], form.get("client_secret", "")
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        made = base64.urlsafe_b64encode(challenge).decode().rstrip("=")
        if (name, secret) != (CLIENT, self.secret):
            self.faults.append("invalid_client")
        elif request is None or (form["grant_type"], form["redirect_uri"], made) != (
            "authorization_code", request["redirect_uri"], request["code_challenge"],
        ):  # fmt: skip
            self.faults.append("invalid_grant")
        else:
            token = {
                "access_token": "x",
                "token_type": "Bearer",
                "id_token": self.identity(request),
            }
            return 200, token
        return 400, {"error": self.faults[-1]}

    def identity(self, request: dict[str, str]) -> str:
        """An identity token, as it should be but for what a test forges."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": request["nonce"],
            **self.person, **self.forged,
        }  # fmt: skip
        for name in {"exp", "iat", "nbf"} & self.forged.keys():
            claims[name] = None if self.forged[name] is None else now + self.forged[name]
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, **self.signed)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
