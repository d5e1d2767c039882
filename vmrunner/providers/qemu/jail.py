"""The namespaces that a VM lies in, and the process that is pid 1 there.

    keeper ─ jail (pid 1 of the VM's own user, pid, mount and network namespaces; forwards SSH)
               ├─ QEMU    (the same network namespace, no capability, seccomp)
               └─ pasta   (unless its network is `none`: in the host's, attached to the VM's)

An allow-list puts a proxy between the two (`allow/process.py`).

The kernel kills all that is in a pid namespace when its pid 1 dies. So one SIGKILL ends a VM with
its helper, and the jail dies with the keeper, by two belts: it holds the reading end of a pipe
whose only writing end the keeper has, and it asked for SIGKILL at its parent's death.

Started as root, everything below the keeper is an unprivileged user outside and "root" inside,
where that means: may set up these namespaces. QEMU gives that up before it starts.
This module is read by the keeper: standard library only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import selectors
import signal
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from vmrunner.providers.qemu import cgroup, jail_root, network, seccomp, syscalls
from vmrunner.providers.qemu.allow import process
from vmrunner.providers.qemu.allow.process import ProxySpec
from vmrunner.providers.qemu.command_line import KERNEL_HEAD, REOPENED, SSH_PORT, QemuFd
from vmrunner.providers.qemu.forward import Forwarder

#: Each arena of the C library's allocator reserves 64 MiB of what RLIMIT_AS counts.
_ARENAS: Final = {"MALLOC_ARENA_MAX": "8"}
_UNANNOUNCED: Final = 120.0  # seconds after which the word of a console is not waited for


@dataclass(frozen=True, kw_only=True)
class JailSpec:
    """The values that a jail is made with. Plain values: it comes from `plan.json`."""

    qemu: list[str]
    pasta: str | None  # None: the VM reaches nothing
    tun: bool  # pasta's device must be made where it may open it
    nft: str
    rules: str
    resolver: str | None  # whom QEMU asks for the names that the guest asks it for
    user: tuple[int, int] | None  # uid and gid to become; None: stay who we are
    images: list[tuple[int, str]]  # QEMU's number of each read-only file
    hide: list[str]  # directories that QEMU has no business in
    limits: dict[str, int]  # by the name of the resource, as `resource.RLIMIT_…`
    announced: bool = False  # its sshd is not reachable until the keeper says `open`
    channel: bool = False  # the keeper will, however long it takes
    resumed: bool = False  # it will soon: who asks may wait
    proxy: ProxySpec | None = None  # of an allow-list: all that the VM reaches
    group: Path | None = None  # the control group that all of it is in


@dataclass(kw_only=True)
class Jail:
    """The keeper's end of a jail."""

    pid: int
    life: int  # closed, by us or by our death: the jail ends
    news: int  # lines of JSON: running, exit, error
    console: int
    errors: int

    def deny(self, prefixes: list[str]) -> None:
        """Deny these prefixes to the guest, from now on."""
        self._tell(f"deny {' '.join(prefixes)}")

    def open(self) -> None:
        """The way to the guest's sshd, which listens."""
        self._tell("open")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self.life, line.encode() + b"\n")

    def kill(self) -> None:
        """End the VM and its helper. When this returns, none of them is alive."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self.life)


@dataclass(kw_only=True)
class _Ends:
    """The jail's ends of the pipes."""

    life: int
    news: int
    console: int
    errors: int

    def say(self, **message: Any) -> None:
        os.write(self.news, json.dumps(message).encode() + b"\n")


def start_jail(
    spec: JailSpec, files: dict[int, int], listener: socket.socket, private: Sequence[int] = ()
) -> Jail:
    """Start a jail. `files`: QEMU's number of each file → our descriptor; `listener`: where SSH is
    asked for; `private`: closed in the jail. Raises OSError; later errors come as news."""
    syscalls.adopt_orphans()
    life, news, console, errors = (os.pipe() for _ in range(4))
    ends = _Ends(life=life[0], news=news[1], console=console[1], errors=errors[1])
    unshared, mapped, forked = (os.pipe() for _ in range(3))
    private_ends = (
        life[1],
        news[0],
        console[0],
        errors[0],
        unshared[0],
        mapped[1],
        forked[0],
        *private,
    )
    helper = os.fork()
    if helper == 0:
        # The helper makes the namespaces, forks pid 1 into them and leaves; the keeper adopts it.
        _guarded(
            ends,
            lambda: _make(
                spec, files, listener, ends, private_ends, unshared[1], mapped[0], forked[1]
            ),
        )
    for end in (life[0], news[1], console[1], errors[1], unshared[1], mapped[0], forked[1]):
        os.close(end)
    try:
        pid = 0
        if os.read(unshared[0], 1):
            _map(helper, spec.user)
            os.write(mapped[1], b"1")
            pid = int(os.read(forked[0], 32) or b"0")
    finally:
        for end in (unshared[0], mapped[1], forked[0]):
            os.close(end)
        os.waitpid(helper, 0)
        if not pid:
            os.close(life[1])
    if not pid:
        raise OSError(_error(os.read(news[0], 4096)))
    os.write(life[1], b"\n")  # from now on the jail may tie its life to its parent's
    return Jail(pid=pid, life=life[1], news=news[0], console=console[0], errors=errors[0])


def _error(line: bytes) -> str:
    try:
        return str(json.loads(line.splitlines()[0])["error"])
    except (ValueError, LookupError):
        return "the VM's namespaces could not be made"


def _guarded(ends: _Ends, run: Callable[[], object]) -> NoReturn:
    """Run a forked child's whole life: it never returns into its parent's code."""
    try:
        run()
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - told to the keeper, which decides
        with contextlib.suppress(OSError):
            ends.say(error=f"{error}")
        os._exit(1)


def _map(helper: int, user: tuple[int, int] | None) -> None:
    """Inside its user namespace the helper is root; outside it is the unprivileged user."""
    uid, gid = user or (os.geteuid(), os.getegid())
    proc = Path(f"/proc/{helper}")
    (proc / "setgroups").write_text("deny")
    (proc / "uid_map").write_text(f"0 {uid} 1")
    (proc / "gid_map").write_text(f"0 {gid} 1")


def _make(
    spec: JailSpec,
    files: dict[int, int],
    listener: socket.socket,
    ends: _Ends,
    private_ends: tuple[int, ...],
    unshared: int,
    mapped: int,
    forked: int,
) -> None:
    for end in private_ends:
        os.close(end)
    syscalls.leave_session_keyring()
    if spec.group:
        cgroup.join(spec.group)
    if spec.proxy:
        process.load()
    if spec.user:  # as root, who may enter the directories that they lie in
        files = files | _opened(spec)
        os.setgroups([])
    if spec.tun:
        _make_tun()
    syscalls.unshare(syscalls.NEWUSER | syscalls.NEWNS | syscalls.NEWPID | syscalls.NEWIPC)
    os.write(unshared, b"1")
    if not os.read(mapped, 1):
        return
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.be_dumpable()
    if not spec.user:
        files = files | _opened(spec)
    pid = os.fork()
    if pid == 0:
        for end in (unshared, mapped, forked):
            os.close(end)
        _guarded(ends, lambda: _init(spec, files, listener, ends))
    os.write(forked, str(pid).encode())


def _opened(spec: JailSpec) -> dict[int, int]:
    """The read-only files, opened for reading. One that QEMU opens anew and that its user may not
    open is copied into memory, where it cannot be written either. Of the kernel a clone gets
    what QEMU looks into: it has booted, and QEMU keeps all that it reads of it in each clone."""
    found = {}
    for number, path in spec.images:
        descriptor = syscalls.open_protected(path)
        mode = os.fstat(descriptor).st_mode
        if spec.resumed and number == QemuFd.KERNEL:
            descriptor = syscalls.sealed_copy(descriptor, KERNEL_HEAD)
        elif spec.user and number in REOPENED and not mode & stat.S_IROTH:
            descriptor = syscalls.sealed_copy(descriptor)
        found[number] = descriptor
    return found


def _make_tun() -> None:
    """Root's own view of /dev/net: where no udev ran, only root may open the device there."""
    syscalls.unshare(syscalls.NEWNS)
    syscalls.keep_mounts_private()
    syscalls.mount_empty("/dev/net", devices=True)
    os.mknod("/dev/net/tun", stat.S_IFCHR, os.makedev(10, 200))
    Path("/dev/net/tun").chmod(0o666)


def _init(spec: JailSpec, files: dict[int, int], listener: socket.socket, ends: _Ends) -> None:
    """Pid 1: lay the VM in, then wait for the keeper's death or the VM's."""
    if not os.read(ends.life, 1):  # the helper is reaped: the keeper is our parent
        return
    syscalls.die_with_parent()
    _let_go()
    syscalls.keep_mounts_private()
    syscalls.mount_empty("/tmp")  # noqa: S108 - our own from here on
    helpers = {} if (helper := _network(spec)) is None else {helper: "the network helper (pasta)"}
    outside = None
    if spec.proxy:
        proxy, outside = process.start(spec.proxy, spec.nft, partial(_guarded, ends))
        helpers[proxy] = "the proxy of the allow-list"
    started_reader, started = os.pipe()  # closed by a successful exec
    qemu = os.fork()
    if qemu == 0:
        os.close(started_reader)
        _guarded(ends, lambda: _become(spec, files, ends))
    for end in (started, ends.console, ends.errors, *files.values()):
        os.close(end)
    os.read(started_reader, 1)
    ends.say(running=qemu)
    _wait(spec, ends, listener, qemu, helpers, outside)


def _let_go() -> None:
    """Close all that the keeper still has open for its creator, and drop its signal handlers."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _network(spec: JailSpec) -> int | None:
    """Move into a network namespace behind its rules. Returns the helper's pid, if there is one.

    The helper joins it from the host's network, so a child makes the namespace and waits in it
    until both pasta and this process have come."""
    answers, answer = os.pipe()
    done, finish = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(finish)
        os.close(answers)
        try:
            syscalls.unshare(syscalls.NEWNET)
            syscalls.loopback_up()
            network.load(spec.nft, spec.rules)
            os.write(answer, Path("/proc/self").readlink().name.encode())
            os.read(done, 1)
        except OSError as error:
            os.write(answer, f"!{error}".encode())
        finally:
            os._exit(0)
    os.close(answer)
    os.close(done)
    pid = os.read(answers, 4096).decode()
    if not pid.isdigit():
        raise OSError(pid.removeprefix("!") or "no network namespace")
    # Its number outside: /proc is still the host's.
    space = f"/proc/{pid}/ns/net"
    net = os.open(space, os.O_RDONLY)
    helper = network.attach(spec.pasta, space) if spec.pasta else None
    syscalls.enter(net, syscalls.NEWNET)
    for end in (net, answers, finish):
        os.close(end)
    os.waitpid(child, 0)
    return helper


def _become(spec: JailSpec, files: dict[int, int], ends: _Ends) -> None:
    """Turn into QEMU, without privileges."""
    os.dup2(ends.console, 1)
    os.dup2(ends.errors, 2)
    for number, descriptor in files.items():
        os.dup2(descriptor, number, inheritable=True)
    with contextlib.suppress(OSError):  # the first to go when memory is short, before vmrunner
        Path("/proc/self/oom_score_adj").write_text("500")
    program = Path(spec.qemu[0]).resolve()  # some systems have their programs' links in /run
    syscalls.unshare(syscalls.NEWNS)
    jail_root.enter(program, spec.hide, network.PROXY if spec.proxy else spec.resolver)
    syscalls.give_up_privileges()
    for name, most in spec.limits.items():
        resource.setrlimit(getattr(resource, name), (most, most))
    syscalls.filter_calls(seccomp.encoded())
    os.execve(program, spec.qemu, {**network.ENVIRONMENT, **_ARENAS})  # noqa: S606


def _wait(
    spec: JailSpec,
    ends: _Ends,
    listener: socket.socket,
    qemu: int,
    helpers: Mapping[int, str],
    outside: int | None,
) -> None:
    """Forward SSH until the VM ends, a helper dies or the keeper is gone. Leaving this is the
    end of all of them. `outside`: the network that the proxy goes out by, if there is one."""
    selector = selectors.DefaultSelector()
    target = ("127.0.0.1", SSH_PORT)
    forwarder = Forwarder(selector, listener, target, shut=spec.announced, held=spec.resumed)
    unannounced = math.inf if spec.channel else time.monotonic() + _UNANNOUNCED
    selector.register(ends.life, selectors.EVENT_READ)
    selector.register(os.pidfd_open(qemu), selectors.EVENT_READ)
    pending = b""
    while True:
        for key, mask in selector.select(1.0):
            if key.data is not None:
                key.data(mask)
            elif key.fd == ends.life:
                data = os.read(ends.life, 4096)
                if not data:
                    return  # the keeper is gone
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    _heed(line.decode(), spec, forwarder, outside)
        if time.monotonic() >= unannounced:
            forwarder.open()
        for pid, status in _reaped():
            if pid == qemu:
                ends.say(exit=os.waitstatus_to_exitcode(status))
                return
            if pid in helpers:
                raise OSError(f"{helpers[pid]} died")


def _heed(line: str, spec: JailSpec, forwarder: Forwarder, outside: int | None) -> None:
    """Do what the keeper tells."""
    match line.split():
        case ["deny", *prefixes]:
            network.load(spec.nft, network.deny(prefixes), space=outside)
        case ["open"]:
            forwarder.open()


def _reaped() -> list[tuple[int, int]]:
    """Children that have ended: as pid 1 we also get those of others."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, status))
