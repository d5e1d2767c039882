"""What stands in for paramiko's pipe gives the same bytes in the same order."""

from __future__ import annotations

import socket
import threading

from hypothesis import given
from hypothesis import strategies as st

from vmrunner.session.ssh.paramiko_patches import AT_REST, PatchedSocket, ReceiveBuffer


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=9), st.integers(1, 12))))
def test_what_was_fed_comes_out_once_and_in_order(moves: list[bytes | int]) -> None:
    inbox, fed, read = ReceiveBuffer(), b"", b""
    for move in moves:
        if isinstance(move, bytes):
            inbox.feed(move)
            fed += move
        else:
            piece = inbox.read(move)
            assert len(piece) == min(move, len(fed) - len(read))
            read += piece
        assert len(inbox) == len(fed) - len(read)
        assert inbox.read_ready() == (len(fed) > len(read))
    assert read + inbox.read(len(fed) + 1) == fed


def test_one_bell_rings_for_what_comes_and_for_the_end() -> None:
    bell = threading.Event()
    inboxes = ReceiveBuffer(), ReceiveBuffer()
    for inbox in inboxes:
        inbox.set_event(bell)
    assert bell.is_set(), "what came before would be waited for"
    for ring in (lambda: inboxes[0].feed(b"x"), inboxes[1].close):
        bell.clear()
        ring()
        assert bell.is_set()


@given(st.lists(st.integers(1, 40), max_size=20), st.binary(max_size=200))
def test_a_wire_reading_ahead_gives_no_more_than_asked(sizes: list[int], data: bytes) -> None:
    near, far = socket.socketpair()
    with near, far, PatchedSocket(fileno=near.detach()) as wire:
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        got = b""
        for size in [*sizes, *[40] * (len(data) + 1)]:
            piece = wire.recv(size)
            assert len(piece) <= size
            assert piece or got == data
            got += piece
        assert got == data


def test_a_wire_at_rest_sets_little_aside() -> None:
    """Python allocates what a call may bring while it waits."""
    near, far = socket.socketpair()
    with near, far, PatchedSocket(fileno=near.detach()) as wire:
        far.sendall(bytes(100_000))
        kept = []
        for _ in range(2):
            wire.recv(1)
            kept.append(len(wire._ahead))
            wire.recv(wire._room)
        assert kept == [AT_REST, 100_000 - AT_REST], "little first, then all there is"
        far.sendall(b"x")
        wire.recv(1)
        assert wire._room == AT_REST, "it rests again"
