"""SSH through a socket in a directory, as into a local VM."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from tests.support.sshd import Sshd
from vmrunner.lib import unix_sockets
from vmrunner.lib.channels import UNIX_SOCKET
from vmrunner.model import Address
from vmrunner.providers.qemu.forward import Forwarder
from vmrunner.session.ssh import client, paramiko_patches


@pytest.fixture
def address(sshd: Sshd, tmp_path: Path) -> Iterator[Address]:
    """A socket behind which this sshd answers, too deep for an address."""
    path = tmp_path / ("d" * 120) / "ssh"
    path.parent.mkdir()
    stop = threading.Event()
    with unix_sockets.listen(path) as listener, selectors.DefaultSelector() as selector:
        forwarder = Forwarder(selector, listener, (sshd.address.host, sshd.address.port))

        def forward() -> None:
            while not stop.is_set() or forwarder._pairs:  # each ends with its client
                for key, mask in selector.select(0.05):
                    key.data(mask)

        thread = threading.Thread(target=forward)
        thread.start()
        yield Address(str(path))
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def dialer(sshd: Sshd) -> client.Dialer:
    return client.Dialer(sshd.access, channel=UNIX_SOCKET, user=sshd.user)


def test_commands_run_and_much_goes_both_ways(sshd: Sshd, address: Address) -> None:
    connection = dialer(sshd).connect(address, timeout=20)
    much = b"x" * (3 << 20)
    assert connection.run("wc -c", stdin=[much]).stdout.strip() == str(len(much)).encode()
    assert connection.run("exit 7").exit_code == 7
    connection.close()


def test_where_nobody_is_yet_is_tried_again(sshd: Sshd, address: Address, tmp_path: Path) -> None:
    nowhere = Address(str(tmp_path / "nowhere" / "ssh"))
    with pytest.raises(client.Unreachable, match=f"no SSH to {nowhere.host}: .*No such file"):
        dialer(sshd).connect(nowhere, timeout=0.3)
    later = tmp_path / "later"

    def bring() -> None:
        later.symlink_to(Path(address.host).parent)

    timer = threading.Timer(0.2, bring)
    timer.start()
    found = Address(str(later / "ssh"))
    dialer(sshd).connect(found, timeout=20).close()
    timer.join()


def test_a_peer_that_takes_nothing_more_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TCP's own time-out does; a socket of the host has none."""
    monkeypatch.setattr(paramiko_patches, "SEND_TIMEOUT", 50)
    ours, theirs = socket.socketpair()
    with (
        theirs,
        paramiko_patches.PatchedSocket.over(ours) as wire,
        pytest.raises(ConnectionAbortedError),
    ):
        all(map(wire.send, repeat(b"x" * 65536)))
