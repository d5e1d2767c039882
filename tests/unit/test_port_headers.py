"""Headers between a browser and a hostile service in a VM."""

from __future__ import annotations

import random
import re

import pytest

from vmrunner.server.port_headers import Header, from_vm, to_vm

PREFIX = "/api/v1/builds/b-2/ports/80/~0a"
URL = "http://builds.example.org:8470/a/b?x=1"


def answered(*headers: Header, own_origin: bool = False) -> list[Header]:
    return from_vm(headers, 80, "" if own_origin else PREFIX, URL, own_origin=own_origin)


def place(location: bytes) -> str | None:
    """Where a browser is sent."""
    found = [value for name, value in answered((b"Location", location)) if name == b"location"]
    return found[0].decode("latin-1") if found else None


@pytest.mark.parametrize(
    ("location", "below"),
    [
        (b"/next", "/next"), (b"next?q#f", "/a/next?q#f"), (b"../n", "/n"), (b"?y", "/a/b?y"),
        (b"http://localhost:80/n", "/n"), (b"https://127.0.0.1:80", "/"),
        (PREFIX.encode() + b"/n", "/n"), (b"//BUILDS.example.org" + PREFIX.encode() + b"/n", "/n"),
        (b"/../../../../../../../login", "/login"), (b"/%2e%2E/%2e./x", "/x"),
        (b"http://builds.example.org/api/v1/builds/b-3/ports/1/", "/api/v1/builds/b-3/ports/1/"),
        (PREFIX.encode() + b"/../../../../b-3/ports/1/", "/b-3/ports/1/"),
    ],
)  # fmt: skip
def test_a_redirect_of_this_server_stays_below_the_port(location: bytes, below: str) -> None:
    assert place(location) == PREFIX + below


@pytest.mark.parametrize(
    "location",
    [
        b"/\\builds.example.org/", b"\\\\x", b"http:/x", b"http:x", b"http:\\\\x", b"//x@y/",
        b"http://%62uilds.example.org/", b"/a\tb", b"mailto:1@x", b"http://[::1/", b"///x", b"x:0",
    ],
)  # fmt: skip
def test_a_redirect_that_browsers_read_otherwise_is_none(location: bytes) -> None:
    assert place(location) is None


def test_a_redirect_elsewhere_is_the_services_own() -> None:
    assert place(b"https://example.com/a/../b?c#d") == "https://example.com/a/../b?c#d"


def test_no_redirect_leads_out_of_the_port() -> None:
    words = [
        b"/", b"//", b"..", b".", b"%2e", b"\\", b"http:", b"https://", b"builds.example.org", b"?",
        b"#", b"x", b":8470", b"@", b";", b"\t", b"[", b"]", b"1", PREFIX.encode(), b" ", b"\xe9",
        b"localhost:80", b"%5c", b"%2f", b"~",
    ]  # fmt: skip
    rng = random.Random(7)
    for _ in range(20_000):
        location = b"".join(rng.choices(words, k=rng.randrange(8))).strip()
        found = place(location)
        if found is None or re.match(
            r"(https?:)?//(?!builds\.example\.org([:/?#]|$))[^/?#]", found
        ):
            continue
        path = re.split("[?#]", found, maxsplit=1)[0]
        assert path.startswith(f"{PREFIX}/"), (location, found)
        parts = path.lower().replace("%2e", ".").split("/")
        assert ".." not in parts, (location, found)
        assert "\\" not in path, (location, found)


def test_who_knows_the_caller_tells_no_vm() -> None:
    headers = [
        (b"X-Amzn-Oidc-Data", b"1"), (b"X-Goog-Iap-Jwt-Assertion", b"1"), (b"Remote-User", b"ada"),
        (b"Cf-Access-Jwt-Assertion", b"1"), (b"X-Auth-Request-Access-Token", b"1"),
        (b"True-Client-Ip", b"6.6.6.6"), (b"X-Real-Ip", b"6.6.6.6"),
    ]  # fmt: skip
    sent = to_vm([*headers, (b"Host", b"h"), (b"X-Own", b"1")], 80, PREFIX, own_origin=False)
    assert dict(sent) == {
        b"host": b"localhost:80", b"x-own": b"1", b"x-forwarded-host": b"h",
        b"x-forwarded-prefix": PREFIX.encode(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "cookie", [b"vmrunner_port=1", b"=vmrunner_port=1", b" = __Host-vmrunner_port=1", b"VMRUNNER_x"]
)
def test_no_service_sets_a_cookie_of_ours(cookie: bytes) -> None:
    assert answered((b"Set-Cookie", cookie), own_origin=True) == []


def test_an_answer_has_one_length() -> None:
    both = [(b"Content-Length", b"2"), (b"Transfer-Encoding", b"chunked")]
    assert answered(*both, own_origin=True) == []
