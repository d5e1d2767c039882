"""The filter that QEMU starts under, evaluated as the kernel does; and that it starts under it."""

from __future__ import annotations

import errno
import os
import resource
import struct
from pathlib import Path

import pytest

from vmrunner.providers.qemu import jail as jail
from vmrunner.providers.qemu import jail_root, seccomp, syscalls

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOWED, REFUSED, KILLED = 0x7FFF_0000, 0x0005_0000 | errno.EPERM, 0x8000_0000


def verdict(number: int, *arguments: int, arch: int = X86_64) -> int:
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=iIQ6Q", number, arch, 0, *words)
    at, loaded = 0, 0
    program = seccomp.encoded()
    while True:
        code, jump, skip, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += jump if loaded == value else skip
            case 0x35:
                at += jump if loaded >= value else skip
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"no such code: {code:#x}")


@pytest.mark.parametrize("name", sorted(seccomp.DENIED))
def test_what_a_vm_has_no_use_for_is_refused(name: str) -> None:
    assert verdict(seccomp.DENIED[name]) == REFUSED


@pytest.mark.parametrize("call", [188, 189, 190, 463, 64])  # setxattr and its kin, semget
def test_no_call_takes_memory_of_the_kernels_without_a_limit(call: int) -> None:
    """Attributes of a file in memory, and sets of semaphores, lie in no address space."""
    assert verdict(call) == REFUSED


def test_everything_else_is_allowed_up_to_the_last_call() -> None:
    special = {*seccomp.DENIED.values(), 41, 53}
    for number in set(range(470)) - special:
        assert verdict(number) == ALLOWED, number


@pytest.mark.parametrize("call", [41, 53])  # socket, socketpair
def test_sockets_are_of_two_families(call: int) -> None:
    allowed = {family for family in range(50) if verdict(call, family, 1, 0) == ALLOWED}
    assert allowed == {1, 2}
    assert verdict(call, 40, 1, 0) == REFUSED, "VSOCK has no namespace"
    assert verdict(call, (1 << 32) + 40) == REFUSED, "the kernel takes the lower half"
    assert verdict(call, (1 << 32) + 2) == ALLOWED


@pytest.mark.parametrize("arch", [I386, AARCH64])
def test_another_architectures_calls_end_the_process(arch: int) -> None:
    assert {verdict(number, arch=arch) for number in (0, 41, 250, 400)} == {KILLED}


def test_the_x32_table_is_another_architecture() -> None:
    assert verdict(0x4000_0000 | 250) == KILLED
    assert verdict(0x4000_0000) == KILLED
    assert verdict(-1) == KILLED


def test_qemu_starts_once_all_that_holds_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its root before its privileges go, since making one needs them; the filter last of all, since
    it refuses what the others do."""
    done: list[str] = []
    for module, name in (
        *[(syscalls, "unshare"), (jail_root, "enter"), (syscalls, "give_up_privileges")],
        *[(resource, "setrlimit"), (syscalls, "filter_calls"), (os, "execve")],
    ):
        monkeypatch.setattr(module, name, lambda *_, name=name: done.append(name))
    monkeypatch.setattr(os, "dup2", lambda *_, **__: None)
    monkeypatch.setattr(Path, "write_text", lambda *_: None)  # its own score
    spec = jail.JailSpec(
        qemu=["/usr/bin/qemu"], pasta=None, tun=False, nft="nft", rules="", resolver=None,
        user=None, images=[], hide=[], limits={"RLIMIT_AS": 1},
    )  # fmt: skip
    jail._become(spec, {}, jail._Ends(life=0, news=0, console=0, errors=0))
    assert done == [
        "unshare", "enter", "give_up_privileges", "setrlimit", "filter_calls", "execve",
    ]  # fmt: skip
