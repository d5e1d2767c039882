"""Ports and files of a sandbox over channels that end both ways at the first end, as KubeVirt's and
a MicroVM's do, and over exec streams: what `test_sandbox_client` shows over TCP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.integration import test_sandbox_client as over_tcp
from tests.support.exec_server import MICROVM, path_of, stream_server
from tests.support.sandboxes import SandboxWorld, sandbox
from tests.support.session_world import sshd, world
from vmrunner.lib.websocket_channel import EXEC, KUBEVIRT, WebSocketChannel, WebSocketTarget
from vmrunner.model import Address

pytestmark = pytest.mark.timeout(120)
__all__ = ["sandbox", "sshd", "world"]

POD: Final = Address("builds/vm-1", 22)
WAYS: Final = {"kubevirt": KUBEVIRT, "microvm": (MICROVM,), "exec": EXEC[:1], "exec-v4": EXEC[1:2]}


@pytest.mark.parametrize("speaks", WAYS.values(), ids=WAYS)
def test_ports_and_files_need_no_half_end(
    sandbox: SandboxWorld, tmp_path: Path, speaks: Sequence[str]
) -> None:
    with stream_server(tuple(speaks)) as server:
        opened = []

        def target(address: Address) -> WebSocketTarget:
            server.pods[POD] = address
            opened.append(address)
            return WebSocketTarget(
                url=server.url + path_of(POD),
                subprotocols=tuple(EXEC if speaks[0] in EXEC else speaks),
                headers={"Authorization": f"Bearer {server.token}"},
                proxy=None,
            )

        channel = WebSocketChannel(target)
        assert channel.half_closes is False
        sandbox.client._channel = lambda _: channel
        over_tcp.test_a_port_of_the_sandbox_is_reached_from_here(sandbox)
        over_tcp.test_files_go_there_and_back(sandbox)
        over_tcp.test_directories_go_up_and_come_down(sandbox, tmp_path)
        assert opened
        sandbox.end()
