"""A stream that something else than the system carries, and the reason why it ended."""

from __future__ import annotations

import copy
import socket

import paramiko
import pytest

from vmrunner.lib.channels import CarriedStream, StreamBroken

WHY = "the pod was deleted"


def test_its_error_can_be_copied() -> None:
    assert str(copy.copy(StreamBroken(WHY))) == WHY


def test_an_ssh_connection_over_it_hears_why_it_ended() -> None:
    near, far = socket.socketpair()
    stream = CarriedStream(near.detach())
    stream.ending.why = WHY
    transport = paramiko.Transport(stream)
    transport.banner_timeout = 10
    far.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(StreamBroken, match=f"^{WHY}$"):
        transport.start_client(timeout=10)
    assert not transport.is_active()
    transport.join(10)
    far.close()
