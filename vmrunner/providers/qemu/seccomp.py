"""System calls that are refused to a QEMU that was taken over, as a BPF program. Pure.

QEMU's own filter (`-sandbox`) ends a process that starts programs or wants privileges, and allows
the rest, of which it needs little. This one goes before it: what opens another part of the kernel,
reaches another process or key, or takes memory that no limit counts, is refused with EPERM.
x86-64 only, as local VMs are; a call by any other architecture's table ends the process.
"""

from __future__ import annotations

import errno
import struct
from typing import Final, NamedTuple

_X86_64: Final = 0xC000003E  # AUDIT_ARCH_X86_64
_X32: Final = 0x4000_0000  # the bit of calls in the x32 table
_ALLOW: Final = 0x7FFF_0000
_REFUSE: Final = 0x0005_0000 | errno.EPERM
_KILL: Final = 0x8000_0000

# Where things lie in the kernel's `struct seccomp_data`.
_NUMBER: Final = 0
_ARCH: Final = 4
_FIRST: Final = 16  # the lower half of the first argument

# Codes of classic BPF.
_LOAD: Final = 0x20
_IF_EQUAL: Final = 0x15
_IF_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06

# By what they open: keys and the user's session; large parts of the kernel that a VM has no use
# for; other processes, and files by another way than their path; namespaces and mounts; memory that
# RLIMIT_AS does not count, the kernel's own included.
_TABLE: Final = """
    add_key=248 request_key=249 keyctl=250

    io_uring_setup=425 io_uring_enter=426 io_uring_register=427 bpf=321 perf_event_open=298
    userfaultfd=323 fanotify_init=300 personality=135 splice=275 tee=276 vmsplice=278
    modify_ldt=154 syslog=103 init_module=175 finit_module=313 kexec_load=246 kexec_file_load=320

    ptrace=101 process_vm_readv=310 process_vm_writev=311 process_madvise=440 kcmp=312
    pidfd_open=434 pidfd_getfd=438 name_to_handle_at=303 open_by_handle_at=304

    unshare=272 setns=308 chroot=161 pivot_root=155 mount=165 umount2=166 open_tree=428
    move_mount=429 fsopen=430 fsconfig=431 fsmount=432 fspick=433 mount_setattr=442

    memfd_create=319 memfd_secret=447 shmget=29 msgget=68 semget=64 mq_open=240
    setxattr=188 lsetxattr=189 fsetxattr=190 setxattrat=463
"""
DENIED: Final = {name: int(number) for name, number in (word.split("=") for word in _TABLE.split())}
_SOCKETS: Final = {"socket": 41, "socketpair": 53}
#: UNIX and INET. A VM's socket of the family VSOCK would pass by its network namespace.
FAMILIES: Final = (1, 2)


class Instruction(NamedTuple):
    """One of classic BPF: jumps count from the next one."""

    code: int
    jump: int  # when the comparison holds
    skip: int  # when it does not
    value: int


def program() -> list[Instruction]:
    """The filter, put together from lines of (code, value, where to when it holds, or else)."""
    lines: list[tuple[int, int, str, str]] = []
    labels: dict[str, int] = {}

    def add(code: int, value: int, jump: str = "", skip: str = "") -> None:
        lines.append((code, value, jump, skip))

    add(_LOAD, _ARCH)
    add(_IF_EQUAL, _X86_64, skip="kill")
    add(_LOAD, _NUMBER)
    add(_IF_AT_LEAST, _X32, "kill")
    for number in DENIED.values():
        add(_IF_EQUAL, number, "refuse")
    for number in _SOCKETS.values():
        add(_IF_EQUAL, number, "family")
    add(_RETURN, _ALLOW)
    labels["family"] = len(lines)
    add(_LOAD, _FIRST)
    for family in FAMILIES:
        add(_IF_EQUAL, family, "allow")
    for label, verdict in (("refuse", _REFUSE), ("allow", _ALLOW), ("kill", _KILL)):
        labels[label] = len(lines)
        add(_RETURN, verdict)

    def distance(label: str, after: int) -> int:
        return labels[label] - after if label else 0

    return [
        Instruction(code, distance(jump, at), distance(skip, at), value)
        for at, (code, value, jump, skip) in enumerate(lines, start=1)
    ]


def encoded() -> bytes:
    """Return the program as the kernel takes it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program())
