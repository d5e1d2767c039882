"""The program that becomes QEMU: `python -P spawn.py PARENT OVERLAY BASE SEED QEMU WORDS…`

QEMU then has the files, given as descriptors, where its words look for them, no capability but to
listen on port 22, and dies with the thread that started this. A guest without a seed has -1.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from vmrunner.providers.qemu import syscalls
from vmrunner.providers.qemu.command_line import QemuFd

_BIND: Final = 10  # CAP_NET_BIND_SERVICE


def main(command: list[str], parent: int, overlay: int, base: int, seed: int) -> None:
    syscalls.die_with_parent()
    if os.getppid() != parent:
        return  # it died before this could be set up
    files = ((overlay, QemuFd.OVERLAY), (base, QemuFd.BASE), (seed, QemuFd.SEED))
    for given, number in files:
        if given < 0:
            continue
        os.dup2(given, number, inheritable=True)
        os.close(given)
    syscalls.give_up_privileges(keep=_BIND)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[5:], *map(int, sys.argv[1:5]))
