"""Names: what the guest hears, and what is asked for in its stead."""

from __future__ import annotations

import asyncio
from typing import Any

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.model import AllowList
from vmrunner.providers.qemu.allow import dns_answers, lookup
from vmrunner.providers.qemu.allow.lookup import Lookup, NoAddress
from vmrunner.providers.qemu.network import PROXY

ALLOW = AllowList(("packages.example.org", "*.example.net:8443", "deb.example.org:80"))
OTHERS = (
    "evil.example.com", "example.net", "notexample.net", "packages.example.org.evil.com",
    "x.packages.example.org", "secret-bits.tunnel.evil.com", f"{'a' * 60}.{'b' * 60}.example.net",
)  # fmt: skip


def answered(name: str, kind: str = "A", **options: Any) -> dns.message.Message:
    question = dns.message.make_query(name, kind, **options)
    reply = dns_answers.answer(question.to_wire(), ALLOW, PROXY)
    assert reply is not None
    found = dns.message.from_wire(reply)
    assert found.id == question.id
    return found


@pytest.mark.parametrize(
    "name", ["packages.example.org", "PACKAGES.example.org", "a.b.example.net"]
)
def test_an_allowed_name_has_the_proxys_address(name: str) -> None:
    reply = answered(name, use_edns=True)
    assert [str(address) for rrset in reply.answer for address in rrset] == [PROXY]
    assert reply.flags & dns.flags.RA


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "TXT", "MX", "ANY", "SVCB"])
def test_an_allowed_name_has_nothing_else(kind: str) -> None:
    """No IPv6 address, no keys for an encrypted hello, no room for a tunnel's answer."""
    reply = answered("packages.example.org", kind)
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_name_exists(name: str) -> None:
    assert answered(name).rcode() == dns.rcode.NXDOMAIN
    assert answered(name, "TXT").answer == []


def test_a_reply_or_a_zone_transfer_is_not_answered() -> None:
    question = dns.message.make_query("packages.example.org", "A")
    question.flags |= dns.flags.QR
    assert dns_answers.answer(question.to_wire(), ALLOW, PROXY) is None
    long = dns.message.make_query("packages.example.org", "A", use_edns=True, pad=1024)
    assert dns_answers.answer(long.to_wire(), ALLOW, PROXY) is None
    assert answered("packages.example.org", rdclass="CH").rcode() == dns.rcode.REFUSED


@given(st.binary(max_size=600))
def test_arbitrary_bytes_get_a_short_answer_or_none(data: bytes) -> None:
    reply = dns_answers.answer(data, ALLOW, PROXY)
    assert reply is None or len(reply) <= dns_answers.QUESTION_BYTES + 32


class Upstream:
    """A resolver. Each name has the address that it is given, or none."""

    def __init__(self) -> None:
        self.queried: list[str] = []
        self.error: Exception | None = None

    async def __call__(
        self, query: dns.message.Message, where: str, **_: object
    ) -> tuple[dns.message.Message, bool]:
        await asyncio.sleep(0)  # others come meanwhile
        if self.error is not None:
            raise self.error
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True)
        self.queried.append(name)
        reply = dns.message.make_response(query)
        if not name.startswith("nothing"):
            alias = f"cdn.{name}."
            reply.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", alias))
            reply.answer.append(dns.rrset.from_text(alias, 3, "IN", "A", "44.1.1.1", "44.1.1.2"))
        return dns.message.from_wire(reply.to_wire()), False


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    found = Upstream()
    monkeypatch.setattr(dns.asyncquery, "udp_with_fallback", found)
    return found


def test_addresses_are_remembered_for_their_time(upstream: Upstream) -> None:
    now = [0.0]
    names = Lookup(ALLOW, "9.9.9.9", now=lambda: now[0])

    async def ask() -> None:
        for at in (0.0, 4.0, 6.0):
            now[0] = at
            found = await names.addresses("packages.example.org")
            assert set(found) == {"44.1.1.1", "44.1.1.2"}

    asyncio.run(ask())
    assert len(upstream.queried) == 2, "a time of 3 s is 5 s"


def test_names_below_a_wildcard_leave_at_a_bounded_rate(upstream: Upstream) -> None:
    now = [0.0]
    names = Lookup(ALLOW, "9.9.9.9", now=lambda: now[0])
    burst = int(lookup.BELOW.burst)

    async def ask() -> None:
        for n in range(burst):
            await names.addresses(f"bits{n}.example.net")
        with pytest.raises(NoAddress, match="too many names below a wildcard"):
            await names.addresses("onemore.example.net")
        assert await names.addresses("bits0.example.net"), "it is known"
        assert await names.addresses("packages.example.org"), "it is no secret"
        now[0] = 1.0
        await names.addresses("onemore.example.net")
        now[0] = 6.0
        for n in range(5):
            await names.addresses(f"again{n}.example.net")
        assert await names.addresses("bits0.example.net"), (
            "it is no new name, though its time is over"
        )

    asyncio.run(ask())
    assert len(upstream.queried) == burst + 7


def test_connections_to_one_name_ask_for_it_once(upstream: Upstream) -> None:
    """A package manager opens dozens at once, and each would be a new name."""
    names = Lookup(ALLOW, "9.9.9.9")

    async def ask() -> None:
        many = range(2 * int(lookup.BELOW.burst))
        found = await asyncio.gather(*(names.addresses("cdn.example.net") for _ in many))
        assert all(found)

    asyncio.run(ask())
    assert upstream.queried == ["cdn.example.net"]


def test_only_so_many_names_are_remembered(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "REMEMBERED_NAMES", 2)
    names = Lookup(ALLOW, "9.9.9.9")
    for n in range(4):
        asyncio.run(names.addresses(f"a{n}.example.net"))
    assert list(names._cached) == ["a2.example.net", "a3.example.net"]


@pytest.mark.parametrize("error", [None, OSError("unreachable"), dns.exception.Timeout()])
def test_without_an_address_there_is_no_connection(
    upstream: Upstream, error: Exception | None
) -> None:
    upstream.error = error
    with pytest.raises(NoAddress):
        asyncio.run(Lookup(ALLOW, "9.9.9.9").addresses("nothing.example.net"))
