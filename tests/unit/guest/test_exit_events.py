"""What the kernel tells of exits."""

from __future__ import annotations

import signal
import struct

import pytest

from vmrunner.guest.exit_events import exit_code

EXIT, EXEC = 0x80000000, 2


def message(what: int, pid: int, status: int) -> bytes:
    """As `recv` gives it, with what a reader has no need of at its end."""
    head = struct.pack("=IHHII", 76, 3, 0, 0, 0) + struct.pack("=IIIIHH", 1, 1, 0, 0, 40, 0)
    return head + struct.pack("=IIQIIII", what, 0, 1, pid, pid, status, signal.SIGCHLD)


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (7 << 8, 7), (signal.SIGKILL, 137), (signal.SIGSEGV | 0x80, 139)]
)
def test_an_exit_is_a_shells_code(status: int, code: int) -> None:
    assert exit_code(message(EXIT, 42, status), 42) == code


def test_other_events_are_no_end() -> None:
    assert exit_code(message(EXIT, 43, 0), 42) is None
    assert exit_code(message(EXEC, 42, 0), 42) is None
    assert exit_code(message(1, 42, 0x7F), 42) is None  # a fork's field there is no wait status
    assert exit_code(message(0, 0, 0), 42) is None
    assert exit_code(b"", 42) is None
    assert exit_code(message(EXIT, 42, 0)[:50], 42) is None


def test_what_stands_elsewhere_in_other_events_is_no_status() -> None:
    """There it is the number of a child, or a user: some of these are no status at all."""
    fork, uid = 1, 4
    assert exit_code(message(fork, 42, 0x127F), 42) is None
    assert exit_code(message(uid, 42, 127), 42) is None
    assert exit_code(message(EXIT, 43, 0x127F), 42) is None
