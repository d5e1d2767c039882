"""The name that a TLS client asks for, out of bytes that an attacker chose."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.client_hellos import ECH, PADDING, SNI, made, names, real, recorded
from vmrunner.providers.qemu.allow.client_hello import (
    LONGEST_HELLO,
    RECORDS,
    HelloRefused,
    server_name,
)

NAME = "packages.example.org"
REAL = real(NAME)
MESSAGE = REAL[5:]
GOOD = (SNI, names(NAME))


def test_the_name_of_openssls_hello_is_read() -> None:
    assert server_name(REAL) == NAME
    assert server_name(real("Packages.EXAMPLE.org")) == NAME


@given(at=st.integers(0, len(REAL) - 1))
@settings(max_examples=60, deadline=None)
def test_a_part_of_it_is_waited_for(at: int) -> None:
    assert server_name(REAL[:at]) is None


@given(ends=st.sets(st.integers(1, len(MESSAGE) - 1), max_size=RECORDS - 1).map(sorted))
@settings(max_examples=60, deadline=None)
def test_it_may_come_in_several_records(ends: list[int]) -> None:
    whole = recorded(MESSAGE, ends)
    assert server_name(whole) == NAME
    assert server_name(whole + b"\x14\3\3\0\1\1") == NAME, "early data follows it"
    for at in range(0, len(whole), 7):
        assert server_name(whole[:at]) is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH_10.0\r\n", "not TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "not TLS"),
        (b"\x15\3\1\0\2\2\x28", "not TLS"),
        (b"\x80\x2e\1\3\1", "not TLS"),
        (b"\x16\2\0\0\1", "not TLS"),
        (b"\x16\3\1\0\4\2\0\0\0", "not a ClientHello"),
        (b"\x16\3\1\0\0", "not a ClientHello"),
        (b"\x16\3\1\0\4\1\xff\xff\xff", f"more than {LONGEST_HELLO} bytes"),
        (b"\x16\3\1\xff\xff\1", f"more than {LONGEST_HELLO} bytes"),
        (recorded(MESSAGE, range(1, RECORDS + 1)), f"in more than {RECORDS} records"),
        (recorded(MESSAGE + b"\1\0\0\0"), "more than a ClientHello"),
        (real(None), "no server name"),
        (recorded(made((PADDING, b""))), "no server name"),
        (recorded(made(GOOD, GOOD)), "extension 0 twice"),
        (recorded(made(GOOD, (ECH, b"\1"))), "encrypted"),
        (recorded(made(GOOD, (0xFE0C, b"\1"))), "encrypted"),  # of a draft
        (recorded(made(GOOD, (0xFFCE, b""))), "encrypted"),
        (recorded(made(GOOD, after=b"\0")), "bytes after the extensions"),
        (recorded(made((SNI, names(NAME, "other.example.org")))), "not one server name"),
        (recorded(made((SNI, names(NAME) + b"\0"))), "not one server name"),
        (recorded(made((SNI, names(NAME, kind=1)))), "not one server name"),
        (recorded(made((SNI, names()))), "too long"),
        (recorded(made((SNI, names(NAME)[:-1]))), "too long"),
        (recorded(made((SNI, names("a.example.org\0.evil.org")))), "no name of a host"),
        (recorded(made((SNI, names("packages.example.org.")))), "no name of a host"),
        (recorded(made((SNI, names("péckages.example.org")))), "no name of a host"),
        (recorded(made((SNI, names("localhost")))), "no name of a host"),
        (recorded(made((SNI, names(f"{'a' * 64}.example.org")))), "no name of a host"),
    ],
)
def test_what_has_two_readings_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(HelloRefused, match=why):
        server_name(data)


@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_refused_or_waited_for(data: bytes) -> None:
    with contextlib.suppress(HelloRefused):
        assert server_name(b"\x16\3\1" + data) is None


@given(at=st.integers(0, len(REAL) - 1), byte=st.integers(0, 255))
@settings(max_examples=300)
def test_a_changed_byte_never_lets_another_name_hide(at: int, byte: int) -> None:
    """Either the name is still there in the clear, or the hello is refused."""
    data = REAL[:at] + bytes([byte]) + REAL[at + 1 :]
    try:
        found = server_name(data)
    except HelloRefused:
        return
    assert found is None or found.encode() in data.lower()
