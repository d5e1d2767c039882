"""Exit of a container as the kernel tells it, by its process events connector (`cn_proc`).

Docker says that a container has ended once it has tidied up after it, which takes seconds in an
emulated VM. The kernel says so when the first process is gone, and with it all others of its PID
namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

_CONNECTOR = 11  # NETLINK_CONNECTOR
_DONE = 3  # NLMSG_DONE
_GROUP = 1  # CN_IDX_PROC, and CN_VAL_PROC
_MOST = 64  # events that are read at a time: a build that forks without end holds no other up
_LISTEN = 1  # PROC_CN_MCAST_LISTEN
_EXIT = 0x80000000  # PROC_EVENT_EXIT
_HEAD = struct.Struct("=IHHIIIIIIHH")  # nlmsghdr, cn_msg
_EVENT = struct.Struct("=IIQIII")  # proc_event: what, CPU, when, thread, process, exit code


def watch(job: dict[str, Any]) -> ExitEvents | None:
    """Events from here on of the job's container that waited; None where the kernel has none, or
    knows no process of it: then Docker tells the end."""
    if job["runtime"] != "runc":
        return None
    try:
        return ExitEvents(job["prestarted"])
    except OSError:
        return None


class ExitEvents(socket.socket):
    """Listens from here on. Raises OSError where the kernel has no such events."""

    def __init__(self, pid: int) -> None:
        super().__init__(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _CONNECTOR)
        self._pid = pid
        try:
            self.bind((0, _GROUP))
            head = (_HEAD.size + 4, _DONE, 0, 0, os.getpid(), _GROUP, _GROUP, 0, 0, 4, 0)
            self.send(_HEAD.pack(*head) + struct.pack("=I", _LISTEN))
        except OSError:
            self.close()
            raise

    def read(self) -> int | None:
        """Return the exit code, 128 and more for a signal; None: it lives, as far as is known.
        Where events are lost Docker tells it."""
        for _ in range(_MOST):
            try:
                data, (sender, _) = self.recvfrom(4096)
            except OSError:
                break
            if not sender and (code := exit_code(data, self._pid)) is not None:
                return code
        return None


def exit_code(message: bytes, pid: int) -> int | None:
    """Return the exit code of that process, if such a message tells it."""
    if len(message) < _HEAD.size + _EVENT.size:
        return None
    what, _, _, thread, _, status = _EVENT.unpack_from(message, _HEAD.size)
    if (what, thread) != (_EXIT, pid):
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
