"""The channel: one identity down, one acknowledgement up, and nothing else means anything."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.guest import identity
from vmrunner.providers.qemu.identity_port import IdentityPort

WHO = {
    "hostname": "vm-1",
    "user_key": "ssh-ed25519 AAAA\n",
    "host_key": "-----BEGIN\n",
    "host_public": "ssh-ed25519 BBBB\n",
    "deadline": 2000.0,
    "network": "none",
}


@pytest.fixture
def ends() -> Iterator[tuple[IdentityPort, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = IdentityPort(ours)
        yield channel, theirs
        channel.close()


def received(guest: socket.socket) -> dict[str, object]:
    found = identity.Message().feed(guest.recv(65536))
    assert found is not None
    return found


def test_the_guest_reads_who_it_is(ends: tuple[IdentityPort, socket.socket]) -> None:
    channel, guest = ends
    channel.tell(WHO, now=1000.0, woken=True)
    found = received(guest)
    assert {name: found[name] for name in WHO} == WHO
    assert found["time"] == 1000.0
    assert found["ttl"] == pytest.approx(1005.0)


def test_each_vm_gets_its_own_randomness_and_ids(ends: tuple[IdentityPort, socket.socket]) -> None:
    channel, guest = ends
    seen = []
    for _ in range(2):
        channel.tell(WHO, now=1000.0, woken=True)
        seen.append(received(guest))
    for name in ("random", "machine_id", "boot_id"):
        assert seen[0][name] != seen[1][name]
    assert len(bytes.fromhex(str(seen[0]["random"]))) == 64


def test_a_vm_that_booted_keeps_its_clock_and_boot_id(
    ends: tuple[IdentityPort, socket.socket],
) -> None:
    channel, guest = ends
    channel.tell(WHO, now=1000.0, woken=False)
    found = received(guest)
    assert (found["time"], found["boot_id"]) == (None, None)


def test_only_the_acknowledgement_is_one(ends: tuple[IdentityPort, socket.socket]) -> None:
    channel, guest = ends
    assert not channel.acknowledged()
    guest.sendall(b"x" * 100)
    for _ in range(10):
        assert not channel.acknowledged()
    guest.sendall(identity.ACK)
    assert any(channel.acknowledged() for _ in range(10))


def test_a_closed_channel_is_no_acknowledgement(ends: tuple[IdentityPort, socket.socket]) -> None:
    channel, guest = ends
    guest.close()
    with pytest.raises(OSError, match="closed"):
        channel.acknowledged()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_a_message_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    text = json.dumps({"hostname": "vm-1", "random": "ab" * 40}).encode()
    data, message, turn = b"VMRUNNER1 %06d\n" % len(text) + text, identity.Message(), 0
    found = None
    while data:
        assert found is None
        size = cuts[turn % len(cuts)]
        found, data, turn = message.feed(data[:size]), data[size:], turn + 1
    assert found == json.loads(text)


@pytest.mark.parametrize("data", [b"VMRUNNER2 000002\n{}", b"x" * 40, b"VMRUNNER1 999999\n{}"])
def test_what_is_no_identity_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        identity.Message().feed(data)
