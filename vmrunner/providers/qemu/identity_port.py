"""The host's end of a VM's own port: one identity down, one acknowledgement up, then it is closed.

Nothing of a build goes over it. What root in the guest writes there is compared with the one
acknowledgement and means nothing else. Read by the keeper: few imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from collections.abc import Mapping
from typing import Any, Final

from vmrunner.guest.identity import ACK, MESSAGE_LIMIT

_RANDOM: Final = 64  # bytes
_TTL_SLACK: Final = 5.0  # seconds by which a guest's own count may pass the deadline


class IdentityPort:
    """One connection to the port `identity.PORT`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._heard = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def tell(self, identity: Mapping[str, Any], *, now: float, woken: bool) -> None:
        """Send the VM its identity. `woken`: its clock stood still until now."""
        text = json.dumps(
            {
                **identity,
                "random": os.urandom(_RANDOM).hex(),
                "time": now if woken else None,
                "machine_id": uuid.uuid4().hex,
                "boot_id": str(uuid.uuid4()) if woken else None,
                "ttl": max(0.0, identity["deadline"] - now) + _TTL_SLACK,
            }
        ).encode()
        if len(text) > MESSAGE_LIMIT:
            raise OSError(f"an identity of {len(text)} bytes")
        self._socket.sendall(b"VMRUNNER1 %06d\n" % len(text) + text)

    def acknowledged(self) -> bool:
        """Read what has come. True once that is the acknowledgement; raises OSError at the end of
        the connection."""
        with contextlib.suppress(BlockingIOError):
            data = self._socket.recv(len(ACK))
            if not data:
                raise OSError("the channel was closed")
            self._heard = (self._heard + data)[-len(ACK) :]
        return self._heard == ACK

    def close(self) -> None:
        self._socket.close()
