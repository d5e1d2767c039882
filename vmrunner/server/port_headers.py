"""Headers between a browser and a service in a VM, each of which may be hostile. Pure.

What names a caller (cookies of ours, Authorization, addresses) goes to no VM. What would have power
over more than the port itself (cookies of other paths, the origin's data, proxies) comes from
none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit

Header = tuple[bytes, bytes]

#: Of one connection (RFC 9110, 7.6.1).
HOP_BY_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings",
})  # fmt: skip
#: Of a caller, which a VM does not get; some are made anew.
_CALLERS: Final = frozenset({
    b"host", b"authorization", b"cookie", b"expect", b"content-length", b"origin", b"referer",
    b"forwarded", b"x-real-ip", b"x-csrf-token", b"x-request-id", b"traceparent", b"tracestate",
})  # fmt: skip
#: Of a caller too, from proxies before us that know who it is, some with a credential of its.
_PROXIES: Final = (
    b"x-forwarded-", b"x-auth-", b"x-amzn-", b"x-goog-", b"x-ms-", b"x-envoy-", b"cf-",
    b"x-client-", b"x-cluster-client-", b"x-original-", b"x-remote-", b"remote-", b"true-client-",
    b"fastly-client-", b"fly-", b"x-vercel-", b"x-azure-", b"tailscale-", b"x-pomerium-",
)  # fmt: skip
#: Of a VM, which would reach beyond its port.
_FAR: Final = frozenset({
    b"set-cookie", b"clear-site-data", b"strict-transport-security", b"alt-svc",
    b"public-key-pins", b"www-authenticate", b"proxy-status", b"nel", b"report-to",
    b"reporting-endpoints", b"location", b"content-location", b"date", b"server",
})  # fmt: skip
#: … and of a port that shares its origin with the page.
_SHARED: Final = frozenset({
    b"service-worker-allowed", b"access-control-allow-origin", b"access-control-allow-credentials",
    b"access-control-allow-headers", b"access-control-allow-methods", b"origin-agent-cluster",
})  # fmt: skip
#: Keeps what a VM sends from the page's powers: it is of no origin.
SANDBOX: Final = (
    b"sandbox allow-downloads allow-forms allow-modals allow-pointer-lock allow-popups "
    b"allow-scripts"
)
#: Cookies of ours begin so.
OURS: Final = ("vmrunner_", "__host-vmrunner_")


def to_vm(headers: Iterable[Header], port: int, prefix: str, *, own_origin: bool) -> list[Header]:
    """Headers of a request as a VM gets them, but those of its body. `own_origin`: the port has a
    host name of its own, so cookies that it set are its own."""
    given = [(name.lower(), value) for name, value in headers]
    gone = HOP_BY_HOP | _CALLERS | _named_by_connection(given)
    values = dict(given)
    here = b"localhost:%d" % port
    found = [(b"host", here)]
    found += [
        (name, value)
        for name, value in given
        if name not in gone and not name.startswith((*_PROXIES, b"sec-websocket-"))
    ]
    if own_origin and (cookies := _foreign_cookies(given)):
        found.append((b"cookie", cookies))
    if b"origin" in values:
        found.append((b"origin", b"http://" + here if own_origin else values[b"origin"]))
    found.append((b"x-forwarded-host", values.get(b"host", b"")))
    if prefix:
        found.append((b"x-forwarded-prefix", prefix.encode("ascii", "replace")))
    return found


def from_vm(
    headers: Iterable[Header], port: int, prefix: str, request_url: str, *, own_origin: bool
) -> list[Header]:
    """Headers of an answer as a browser gets them. `request_url`: `http://HOST/PATH`, by which
    host the request came, and for what of the port."""
    given = [(name.lower(), value) for name, value in headers]
    gone = HOP_BY_HOP | _FAR | _named_by_connection(given)
    if b"transfer-encoding" in dict(given):  # which says where the answer ends
        gone |= {b"content-length"}
    if not own_origin:
        gone |= _SHARED
    found = [(name, value) for name, value in given if name not in gone]
    for name, value in given:
        if name in (b"location", b"content-location"):
            place = _here(value, port)
            if own_origin or (place := _kept_within(place, prefix, request_url)):
                found.append((name, place))
        elif name == b"set-cookie" and own_origin:
            found += [(name, cookie) for cookie in _own_cookie(value)]
    if not own_origin:
        found += [(b"content-security-policy", SANDBOX), (b"referrer-policy", b"no-referrer")]
    return found


def _named_by_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    """Headers that `Connection` calls this connection's."""
    return frozenset(
        word.strip().lower()
        for name, value in headers
        if name == b"connection"
        for word in value.split(b",")
    )


def _foreign_cookies(headers: Iterable[Header]) -> bytes:
    """The cookies of a request that are none of ours."""
    pairs = [
        pair.strip()
        for name, value in headers
        if name == b"cookie"
        for pair in value.split(b";")
        if pair.strip()
    ]
    ours = tuple(word.encode() for word in OURS)
    return b"; ".join(pair for pair in pairs if not pair.lower().startswith(ours))


def _own_cookie(value: bytes) -> Iterator[bytes]:
    """A cookie as its own host's alone; nothing where it would be another's, or is none."""
    text = value.decode("latin-1")
    if text.lstrip("= \t").lower().startswith(OURS):  # a value without a name becomes the name
        return
    words = [word for word in text.split(";") if word.partition("=")[0].strip().lower() != "domain"]
    yield ";".join(words).encode("latin-1")


#: A place elsewhere. What is none, and begins like one, browsers read in ways of their own.
_ADDRESS: Final = re.compile(
    r"(https?:)?//(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d*)?(?=[/?#]|$)"
)
_ADDRESS_LIKE: Final = re.compile(r"[a-z][a-z0-9+.-]*:|//")
_DOT: Final = re.compile("%2e", re.IGNORECASE)


def _kept_within(place: bytes, prefix: str, request_url: str) -> bytes:
    """A place that a VM names below a path of this server: elsewhere, or below the prefix. Whatever
    it names of this server otherwise a browser would open with the page's cookie. Empty: browsers
    would not agree where it is."""
    text = place.decode("latin-1").strip()
    if "\\" in text or not text.isprintable():
        return b""
    address = _ADDRESS.match(text.lower())
    if address is not None:
        if address["host"].strip("[]") != urlsplit(request_url).hostname:
            return place
        text = text[address.end() :] or "/"
    elif _ADDRESS_LIKE.match(text.lower()):
        return b""
    if text.startswith(f"{prefix}/"):
        text = text.removeprefix(prefix)
    try:
        whole = urlsplit(urljoin(request_url, _DOT.sub(".", text)))
    except ValueError:
        return b""
    if not whole.path.startswith("/"):
        return b""
    return f"{prefix}{whole._replace(scheme='', netloc='').geturl()}".encode("latin-1")


def _here(target: bytes, port: int) -> bytes:
    """A place that a VM names; of its own port the path alone."""
    for host in (b"localhost", b"127.0.0.1"):
        for scheme in (b"http://", b"https://"):
            start = scheme + host + b":%d" % port
            if target == start or target.startswith((start + b"/", start + b"?")):
                target = target[len(start) :] or b"/"
    return target
