"""QEMU's own protocol, as far as saving and resuming a VM need it. Blocking, on one socket.

Read by the keeper: standard library only.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Final

from vmrunner.providers.qemu.command_line import QemuFd

_PAUSE: Final = 0.005  # seconds between looks
_MOST: Final = 1 << 20  # bytes of one answer


class QmpError(OSError):
    """QEMU refused, or did not answer in time."""


class Qmp:
    """One connection. Raises QmpError for any failure, and once `seconds` are over."""

    def __init__(self, connection: socket.socket, *, seconds: float) -> None:
        self._socket = connection
        self._until = time.monotonic() + seconds
        self._data = b""
        self._answer()  # the greeting
        self.ask("qmp_capabilities")
        capabilities = [{"capability": "x-ignore-shared", "state": True}]
        self.ask("migrate-set-capabilities", capabilities=capabilities)

    def ask(self, command: str, **arguments: Any) -> Any:
        """Give one command and return its answer."""
        self._socket.settimeout(self._remaining())
        try:
            self._socket.sendall(
                json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
            )
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error
        while True:
            answer = self._answer()
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def resume(self) -> None:
        """Load the state, and wait until the VM runs."""
        self.ask("migrate-incoming", channels=_channels())
        while self._status("query-status") == "inmigrate":
            time.sleep(_PAUSE)
        self.ask("cont")  # refused where the state was not loaded

    def save(self) -> None:
        """Stop the VM for good and save its state, and wait until it is written."""
        self.ask("stop")
        self.ask("migrate", channels=_channels())
        while (status := self._status("query-migrate")) != "completed":
            if status in ("failed", "cancelled"):
                raise QmpError(f"the state was not saved: {status}")
            time.sleep(_PAUSE)
        self.ask("quit")

    def _status(self, command: str) -> Any:
        answer = self.ask(command)
        return answer.get("status") if isinstance(answer, dict) else None

    def _answer(self) -> dict[str, Any]:
        while b"\n" not in self._data:
            self._socket.settimeout(self._remaining())
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise QmpError(f"QEMU does not answer: {error}") from error
            if not data or len(self._data) > _MOST:
                raise QmpError("QEMU hung up")
            self._data += data
        line, _, self._data = self._data.partition(b"\n")
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QmpError(f"QEMU says what is no JSON: {error}") from error
        return found if isinstance(found, dict) else {}

    def _remaining(self) -> float:
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise QmpError("QEMU takes too long")
        return remaining


def _channels() -> list[dict[str, Any]]:
    file = {"transport": "file", "filename": f"/dev/fdset/{QemuFd.STATE:d}", "offset": 0}
    return [{"channel-type": "main", "addr": file}]
