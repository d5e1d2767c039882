"""The keeper: a VM's parent process, in a session of its own. Needs nothing else of ours alive.

    python -m vmrunner.providers.qemu.keeper DIRECTORY MARK

It holds the directory's lock for as long as it lives, starts the VM from `plan.json`, and ends it
when the wall clock passes the deadline, when the guest is done, when `end` appears in the
directory, or on SIGTERM. Then it leaves a tombstone and removes the directory. It says one line on
stdout when the VM is its own: `running`, `held` (another keeper has it), `dead`, or `error …`.

The wall clock is polled: a timer would not count the hours that a laptop slept.
Its imports are few, since every VM waits for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from vmrunner.lib import process, unix_sockets
from vmrunner.providers.qemu import cgroup, command_line, network, processes, state_dir
from vmrunner.providers.qemu.console import Console
from vmrunner.providers.qemu.jail import Jail, JailSpec, start_jail

_POLL: Final = 0.5  # seconds
_ADDRESSES: Final = 5.0  # seconds between looks at the host's own addresses
_START: Final = 30.0  # seconds for namespaces, rules and helper
_ERRORS: Final = 4096  # bytes of QEMU's own complaints that are kept


class Keeper:
    """One VM's life, from the lock to the tombstone."""

    def __init__(self, directory: Path) -> None:
        self.home = state_dir.InstanceDir(directory)
        self.state = state_dir.StateDir(directory.parent.parent)
        self.plan: dict[str, Any] = {}
        self.deadline = 0.0
        self.errors = b""
        self.early = b""  # what the jail said in one breath with `running`
        self.denied: set[str] = set()
        self.wished = False  # SIGTERM came
        self.announced = False  # its console will say when its sshd is there
        self._signals = os.pipe()  # wakes the poll at once
        for end in self._signals:
            os.set_blocking(end, False)

    # --- birth ---

    def listen(self) -> None:
        """SIGTERM is a wish. What a terminal sends to everybody is not meant for a VM."""

        def wish(*_: object) -> None:
            self.wished = True

        signal.set_wakeup_fd(self._signals[1])
        signal.signal(signal.SIGTERM, wish)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def take(self) -> bool:
        """Become the only keeper, for as long as this process lives. A look at the lock by
        others is no lock, so one try is enough."""
        self._lock = (self.home.path / state_dir.LOCK).open("ab")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def start(self) -> Jail | str:
        """The running VM, or why there is none."""
        plan = self.home.read(state_dir.PLAN)
        if plan is None:
            return "plan.json is gone or cut"
        self.plan = plan
        self.deadline = float(plan["deadline"])
        self.console = Console(self.home.path / state_dir.CONSOLE)
        self.announced = bool(plan.get("announced"))
        if time.time() >= self.deadline:
            return "the deadline passed before it started"
        try:
            with self._group() as group:
                state_dir.write_json(
                    self.home.path / state_dir.KEEPER,
                    {
                        "keeper": processes.written(process.current()),
                        state_dir.GROUP: str(group) if group else None,
                    },
                )
                jail = self._started_jail(group)
        except OSError as error:
            return str(error)
        return self._awaited(jail)

    def _group(self) -> contextlib.AbstractContextManager[Path | None]:
        limits = self.plan["group"]
        name = self.home.path.name
        return cgroup.made(
            cgroup.place(), name, memory=limits["memory"], processes=limits["processes"]
        )

    def _started_jail(self, group: Path | None) -> Jail:
        plan = self.plan
        host = network.host_prefixes()
        self.denied = set(host)
        lying = JailSpec(
            qemu=plan["qemu"],
            pasta=plan["pasta"],
            nft=plan["nft"],
            rules=network.rules(resolver=plan["resolver"], host=host),
            resolver=plan["resolver"],
            tun=plan["tun"],
            user=tuple(plan["user"]) if plan["user"] else None,
            images=plan["images"],
            hide=plan["hide"],
            limits=plan["limits"],
            announced=self.announced,
            group=group,
        )
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(unix_sockets.listen(self.home.path / state_dir.SSH))
            files = {number: os.open(path, os.O_RDWR) for number, path in plan["files"]}
            for descriptor in files.values():
                stack.callback(os.close, descriptor)
            return start_jail(lying, files, listener)

    def _awaited(self, jail: Jail) -> Jail | str:
        """Wait until QEMU runs in it."""
        poll = select.poll()
        poll.register(jail.news, select.POLLIN)
        line = os.read(jail.news, 4096) if poll.poll(_START * 1000) else b""
        first, _, self.early = line.partition(b"\n")
        word = json.loads(first) if first else {"error": "it did not start in time"}
        if "running" in word:
            return jail
        jail.kill()
        return str(word.get("error", f"QEMU ended at once: {word}"))

    # --- life ---

    def keep(self, jail: Jail) -> dict[str, Any]:
        """Keep the VM until it must die or has died. Returns how; the VM is dead then."""
        poll = select.poll()
        for end in (jail.news, jail.console, jail.errors, self._signals[0]):
            poll.register(end, select.POLLIN)
        addresses = time.monotonic() + _ADDRESSES
        death = self._verdict(self.early) if self.early else None
        while death is None:
            left = self.deadline - time.time()
            ready = dict(poll.poll(max(1, int(1000 * min(_POLL, left)))))
            for end in ready.keys() - {self._signals[0]}:
                data = os.read(end, 65536)
                if not data:
                    poll.unregister(end)
                death = self._heard(jail, end, data) or death
            if time.time() >= self.deadline:
                death = death or {"cause": "deadline", "detail": "its deadline passed"}
            elif self.wished or (self.home.path / state_dir.END).exists():
                death = death or {"cause": "deleted", "detail": "deleted"}
            if time.monotonic() >= addresses:
                addresses = time.monotonic() + _ADDRESSES
                self._deny_new(jail)
        jail.kill()
        self._drain(jail)
        return {**death, "ended": time.time()}

    def _heard(self, jail: Jail, end: int, data: bytes) -> dict[str, Any] | None:
        if end == jail.console:
            self.console.write(data)
            if self.announced and self.console.says(command_line.ANNOUNCED):
                self.announced = False
                jail.open()
        elif end == jail.errors:
            self.errors = (self.errors + data)[-_ERRORS:]
        else:
            return self._verdict(data)
        return None

    def _verdict(self, data: bytes) -> dict[str, Any]:
        """Return what the jail's last word, or its silence, means."""
        word = json.loads(data.splitlines()[-1]) if data else {"error": "its jail was killed"}
        if word.get("exit") == 0:
            return {"cause": "guest", "detail": "the guest switched itself off", "self_ended": True}
        if "exit" in word:
            return {"cause": "crash", "detail": f"QEMU ended with {word['exit']}"}
        return {"cause": "crash", "detail": str(word.get("error"))}

    def _deny_new(self, jail: Jail) -> None:
        """An address that the host got meanwhile is the host's too."""
        with contextlib.suppress(OSError):
            new = set(network.host_prefixes()) - self.denied
            if new:
                self.denied |= new
                jail.deny(sorted(new))

    def _drain(self, jail: Jail) -> None:
        """Read what was said before the end, and is still in the pipes."""
        self.announced = False  # there is no jail any more that could be told
        for end in (jail.console, jail.errors):
            os.set_blocking(end, False)
            with contextlib.suppress(OSError):
                while data := os.read(end, 65536):
                    self._heard(jail, end, data)
        self.console.close()

    def record_death(self, death: dict[str, Any]) -> None:
        complaint = self.errors.decode("utf-8", "replace").strip()
        if complaint and death["cause"] == "crash":
            death = {**death, "detail": f"{death['detail']}: {complaint[-500:]}"}
        with contextlib.suppress(OSError):
            self.state.record_death(self.home, death)


def _detach() -> None:
    """Let go of whoever started us: the creator's pipe, its terminal, its directory."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def main(directory: Path) -> None:
    os.chdir("/")
    os.umask(0o077)
    keeper = Keeper(directory)

    keeper.listen()
    if not keeper.take():
        print("held", flush=True)  # noqa: T201 - the answer to the creator
        return
    if keeper.home.read(state_dir.KEEPER) is not None:
        # A keeper was here before and was killed; its VM died with it and is never started again.
        keeper.record_death(
            {"cause": "crash", "detail": "its keeper was killed", "ended": time.time()}
        )
        print("dead", flush=True)  # noqa: T201
        return
    jail = keeper.start()
    if isinstance(jail, str):
        keeper.record_death({"cause": "start", "detail": jail, "ended": time.time()})
        print("error", " ".join(jail.split()), flush=True)  # noqa: T201
        return
    print("running", flush=True)  # noqa: T201
    _detach()
    keeper.record_death(keeper.keep(jail))


if __name__ == "__main__":
    if os.fork() == 0:
        os.setsid()
        main(Path(sys.argv[1]))
