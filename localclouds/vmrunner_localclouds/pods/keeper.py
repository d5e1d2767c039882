"""Process 1 of the namespaces in which all pods of one parent live: `keeper.py FD`.

It reaps, and ends when its parent has closed the other end of FD, or has died. The kernel then
kills whatever lives in its PID namespace, whoever started it there.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def reap(*_: object) -> None:
    """Take the end of each process that has lost its parent."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, reap)
    os.write(1, b"\n")
    while os.read(int(sys.argv[1]), 1):
        pass
