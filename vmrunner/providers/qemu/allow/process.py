"""The proxy as a process of a jail: what it is made with, and what holds it.

    jail (in a network that holds itself and QEMU alone)
      ├─ QEMU
      ├─ proxy  (listens in that network; asks for itself in the one that pasta joins to the host's)
      └─ pasta

It is forked, not started: so it needs no file, and its root is empty. It has no capability, may
open no other kind of socket than QEMU may, and can start nothing.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from vmrunner.providers.qemu import jail_root, network, seccomp, syscalls

_LIMITS: Final = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 1024,
    resource.RLIMIT_AS: 1 << 29,
}


@dataclass(frozen=True, kw_only=True)
class ProxySpec:
    """The values that a proxy is made with. Plain values, as the jail's."""

    allow: list[str]
    resolver: str  # whom it asks for names
    rules: str  # of the network that it shares with QEMU


class RunningProxy(NamedTuple):
    """A proxy that was started, and the network that it goes out by."""

    pid: int
    outside: int  # a descriptor


def spec_of(plan: Mapping[str, Any]) -> ProxySpec | None:
    """Allow-list of a plan; None: it has none."""
    if (allow := plan.get("allow")) is None:
        return None
    rules = network.proxy_rules(allow["ports"])
    return ProxySpec(allow=allow["entries"], resolver=plan["resolver"], rules=rules)


def load() -> None:
    """Load its code, while this process may still read it."""
    from vmrunner.providers.qemu.allow import proxy

    proxy.preload()


def start(
    spec: ProxySpec, nft: str, guarded: Callable[[Callable[[], object]], NoReturn]
) -> RunningProxy:
    """Move this process into a network that only the proxy is a way out of, and start that.
    `guarded` runs a child's whole life."""
    from vmrunner.model import AllowList
    from vmrunner.providers.qemu.allow import proxy

    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    syscalls.unshare(syscalls.NEWNET)
    syscalls.loopback_up(network.PROXY)
    network.load(nft, spec.rules)
    allow = AllowList(tuple(spec.allow))
    sockets = proxy.ListenSockets(network.PROXY, sorted(allow.ports))
    pid = os.fork()
    if pid == 0:

        def live() -> None:
            syscalls.enter(outside, syscalls.NEWNET)
            _give_up_all(sockets.filenos())
            proxy.run(allow, spec.resolver, sockets)

        guarded(live)
    sockets.close()
    return RunningProxy(pid, outside)


def _give_up_all(keep: Sequence[int]) -> None:
    """Give up files, privileges, descriptors and most system calls, for good."""
    with contextlib.suppress(OSError):  # as QEMU: the first to go when memory is short
        Path("/proc/self/oom_score_adj").write_text("500")
    syscalls.unshare(syscalls.NEWNS)
    jail_root.enter_empty()
    syscalls.give_up_privileges()
    syscalls.give_up_capabilities()
    for limit, most in _LIMITS.items():
        resource.setrlimit(limit, (most, most))
    syscalls.filter_calls(seccomp.encoded())
    at = 3
    for descriptor in sorted(keep):
        os.closerange(at, descriptor)
        at = descriptor + 1
    os.closerange(at, os.sysconf("SC_OPEN_MAX"))
