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
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from vmrunner.lib import process, unix_sockets
from vmrunner.providers.qemu import cgroup, command_line, network, processes, state_dir
from vmrunner.providers.qemu.allow import process as allow_process
from vmrunner.providers.qemu.command_line import QemuFd
from vmrunner.providers.qemu.console import Console
from vmrunner.providers.qemu.identity_port import IdentityPort
from vmrunner.providers.qemu.jail import Jail, JailSpec, start_jail
from vmrunner.providers.qemu.qmp import Qmp

_POLL: Final = 0.5  # seconds
_ADDRESSES: Final = 5.0  # seconds between looks at the host's own addresses
_START: Final = 30.0  # seconds for namespaces, rules and helper
_ERRORS: Final = 4096  # bytes of QEMU's own complaints that are kept
_RESUME: Final = 15.0  # seconds in which a clone's state must be loaded
_ACKNOWLEDGED: Final = 45.0  # seconds in which it must have taken its identity
_OVERLAY: Final = 30.0  # seconds in which a fresh disk must be made
_SAVE: Final = 60.0  # seconds in which a template's state must be written
_QUIET: Final = 2.0  # seconds that a settled VM gets to write its last


class Keeper:
    """One VM's life, from the lock to the tombstone."""

    def __init__(self, directory: Path) -> None:
        self.instance_dir = state_dir.InstanceDir(directory)
        self.state = state_dir.StateDir(directory.parent.parent)
        self.plan: dict[str, Any] = {}
        self.deadline = 0.0
        self.errors = b""
        self.early = b""  # what the jail said in one breath with `running`
        self.denied: set[str] = set()
        self.stop_requested = False  # SIGTERM came
        self.announced = False  # its console will say when its sshd is there
        self.channel: IdentityPort | None = None
        self.qmp: socket.socket | None = None
        self.unproven: float | None = None  # until when a clone must have answered, if it has not
        self.save_at: float | None = None  # when the VM is to be frozen
        self._signals = os.pipe()  # wakes the poll at once
        for end in self._signals:
            os.set_blocking(end, False)

    # --- birth ---

    def listen(self) -> None:
        """Take SIGTERM as a request. Signals of a terminal to its group are not meant for a VM."""

        def stop(*_: object) -> None:
            self.stop_requested = True

        signal.set_wakeup_fd(self._signals[1])
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGUSR1, lambda *_: None)  # `due` was written: it wakes the poll
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def take(self) -> bool:
        """Become the only keeper, for as long as this process lives. A look at the lock by
        others is no lock, so one try is enough."""
        self._lock = (self.instance_dir.path / state_dir.LOCK).open("ab")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def start(self) -> Jail | str:
        """The running VM, or why there is none. A clone that does not come up is booted instead."""
        plan = self.instance_dir.read(state_dir.PLAN)
        if plan is None:
            return "plan.json is gone or cut"
        self.plan = plan
        self.deadline = float(plan["deadline"])
        self.console = Console(self.instance_dir.path / state_dir.CONSOLE)
        if time.time() >= self.deadline:
            return "the deadline passed before it started"
        resume = plan.get("resume")
        if resume is None:
            return self._launch(plan["qemu"], plan["images"])
        jail = self._launch(resume["qemu"], plan["images"] + resume["images"], resumed=True)
        why = jail if isinstance(jail, str) else self._resume(jail)
        if not isinstance(jail, str) and not why:
            return jail
        return self._boot_instead(why)

    def _launch(
        self, command: list[str], images: list[tuple[int, str]], *, resumed: bool = False
    ) -> Jail | str:
        """Start QEMU in its jail; its memory may still have to be loaded."""
        self.announced = bool(self.plan.get("announced")) and not self.plan.get("channel")
        try:
            with self._group() as group:
                state_dir.write_json(
                    self.instance_dir.path / state_dir.KEEPER,
                    {
                        "keeper": processes.written(process.current()),
                        state_dir.GROUP: str(group) if group else None,
                    },
                )
                jail = self._started_jail(group, command, images, resumed=resumed)
            if self.channel and self.plan.get("identity") and not resumed:
                self.channel.tell(self.plan["identity"], now=time.time(), woken=False)
        except OSError as error:
            return str(error)
        return self._awaited(jail)

    def _resume(self, jail: Jail) -> str:
        """Let the clone run and tell it its identity. Returns the error as text; "": none."""
        assert self.channel is not None
        assert self.qmp is not None
        self.unproven = time.monotonic() + _ACKNOWLEDGED
        seconds = min(_RESUME, self.deadline - time.time())
        try:
            with self.qmp as connection:
                Qmp(connection, seconds=seconds).resume()
            self.channel.tell(self.plan["identity"], now=time.time(), woken=True)
        except OSError as error:
            jail.kill()
            return str(error)
        return ""

    def _boot_instead(self, why: str) -> Jail | str:
        """Boot the VM from its image on a fresh disk. The clone was not used yet, and its jail is
        gone."""
        self.unproven = None
        if time.time() >= self.deadline:
            return f"its deadline passed, and it was not resumed: {why}"
        self.console.write(f"\nvmrunner: not resumed ({why}), so it boots\n".encode())
        for name in (state_dir.SSH, state_dir.OVERLAY):
            (self.instance_dir.path / name).unlink(missing_ok=True)
        try:
            made = subprocess.run(
                self.plan["overlay"], capture_output=True, timeout=_OVERLAY, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"no fresh disk: {error}"
        if made.returncode:
            return f"no fresh disk: {made.stderr.decode(errors='replace').strip()[-500:]}"
        return self._launch(self.plan["qemu"], self.plan["images"])

    def _group(self) -> contextlib.AbstractContextManager[Path | None]:
        return cgroup.made(cgroup.place(), self.instance_dir.path.name, **self.plan["group"])

    def _started_jail(
        self,
        group: Path | None,
        command: list[str],
        images: list[tuple[int, str]],
        *,
        resumed: bool,
    ) -> Jail:
        plan = self.plan
        host = network.host_prefixes()
        self.denied = set(host)
        spec = JailSpec(
            qemu=command,
            pasta=plan["pasta"],
            proxy=allow_process.spec_of(plan),
            nft=plan["nft"],
            rules=network.rules(resolver=plan["resolver"], host=host),
            resolver=plan["resolver"],
            tun=plan["tun"],
            user=tuple(plan["user"]) if plan["user"] else None,
            images=images,
            hide=plan["hide"],
            limits=plan["limits"],
            announced=self.announced or (bool(plan.get("channel")) and not resumed),
            channel=bool(plan.get("channel")),
            resumed=resumed,
            group=group,
        )
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(
                unix_sockets.listen(self.instance_dir.path / state_dir.SSH)
            )
            files = {
                number: os.open(path, command_line.mode(number)) for number, path in plan["files"]
            }
            for descriptor in files.values():
                stack.callback(os.close, descriptor)
            private = []
            self.channel = self.qmp = None
            if plan.get("channel"):
                ours, theirs = socket.socketpair()
                files[QemuFd.CHANNEL] = stack.enter_context(theirs).fileno()
                self.channel = IdentityPort(ours)
                private.append(ours.fileno())
            if resumed or plan.get("save"):
                self.qmp, theirs = socket.socketpair()
                files[QemuFd.QMP] = stack.enter_context(theirs).fileno()
                private.append(self.qmp.fileno())
            return start_jail(spec, files, listener, private)

    def _awaited(self, jail: Jail) -> Jail | str:
        """Wait until QEMU runs in it."""
        poll = select.poll()
        poll.register(jail.news, select.POLLIN)
        seconds = max(0.0, min(_START, self.deadline - time.time()))
        line = os.read(jail.news, 4096) if poll.poll(seconds * 1000) else b""
        first, _, self.early = line.partition(b"\n")
        message = json.loads(first) if first else {"error": "it did not start in time"}
        if "running" in message:
            return jail
        jail.kill()
        return str(message.get("error", f"QEMU ended at once: {message}"))

    # --- life ---

    def keep(self, jail: Jail) -> dict[str, Any]:
        """Keep the VM until it must die or has died. Returns its death; the VM is dead then. A
        clone that failed before its first use is booted instead, once."""
        death = self._keep(jail)
        if self.unproven is not None and death["cause"] in ("crash", "guest"):
            booted = self._boot_instead(death["detail"])
            if isinstance(booted, str):
                return {"cause": "start", "detail": booted, "ended": time.time()}
            death = self._keep(booted)
        return death

    def _keep(self, jail: Jail) -> dict[str, Any]:
        poll = select.poll()
        ends = [jail.news, jail.console, jail.errors, self._signals[0]]
        if self.channel is not None:
            ends.append(self.channel.fileno())
        for end in ends:
            poll.register(end, select.POLLIN)
        addresses = time.monotonic() + _ADDRESSES
        death = self._verdict(self.early) if self.early else None
        while death is None:
            remaining = self.deadline - time.time()
            ready = dict(poll.poll(max(1, int(1000 * min(_POLL, remaining)))))
            if self.channel is not None and self.channel.fileno() in ready:
                ready.pop(end := self.channel.fileno())
                if self._acknowledge(jail):
                    poll.unregister(end)
            if ready.pop(self._signals[0], None):
                os.read(self._signals[0], 4096)
            for end in ready:
                data = os.read(end, 65536)
                if not data:
                    poll.unregister(end)
                death = self._heard(jail, end, data) or death
            death = death or self._due(jail)
            if time.monotonic() >= addresses:
                addresses = time.monotonic() + _ADDRESSES
                self._deny_new(jail)
        jail.kill()
        self._drain(jail)
        return {**death, "ended": time.time()}

    def _due(self, jail: Jail) -> dict[str, Any] | None:
        """Death of the VM, if a time has come or a signal asked for it; else None."""
        self.deadline = self.instance_dir.lowered(self.deadline)
        if time.time() >= self.deadline:
            return {"cause": "deadline", "detail": "its deadline passed"}
        if self.stop_requested or (self.instance_dir.path / state_dir.END).exists():
            return {"cause": "deleted", "detail": "deleted"}
        if self.unproven is not None and time.monotonic() >= self.unproven:
            return {"cause": "crash", "detail": "it did not answer in time"}
        if self.save_at is not None and time.monotonic() >= self.save_at:
            return self._save(jail)
        return None

    def _acknowledge(self, jail: Jail) -> bool:
        """Read the channel. True when it is done with: the VM is itself, and may be spoken to."""
        assert self.channel is not None
        try:
            if not self.channel.acknowledged():
                return False
        except OSError:
            self.channel.close()
            self.channel = None
            return True
        self.channel.close()
        self.channel = None
        start = "cold" if self.unproven is None else "resumed"
        self.unproven = None
        with contextlib.suppress(OSError):
            (self.instance_dir.path / state_dir.STARTED).write_text(start)
        jail.open()
        return True

    def _save(self, jail: Jail) -> dict[str, Any]:
        """Freeze the VM as a template. Its disk is whole once QEMU has ended."""
        assert self.qmp is not None
        self.save_at = None
        until = min(time.time() + _SAVE, self.deadline)
        try:
            with self.qmp as connection:
                Qmp(connection, seconds=until - time.time()).save()
        except OSError as error:
            return {"cause": "crash", "detail": f"not saved: {error}"}
        poll = select.poll()
        poll.register(jail.news, select.POLLIN)
        ended = poll.poll(max(0, 1000 * (until - time.time())))
        end = self._verdict(os.read(jail.news, 65536) if ended else b'{"error": "it does not end"}')
        if end["cause"] == "crash":
            return {**end, "detail": f"not saved: {end['detail']}"}
        return {"cause": "saved", "detail": "saved as a template"}

    def _settled(self) -> bool:
        return bool(self.plan.get("save")) and self.console.says(command_line.SETTLED)

    def _heard(self, jail: Jail, end: int, data: bytes) -> dict[str, Any] | None:
        if end == jail.console:
            self.console.write(data)
            if self.announced and self.console.says(command_line.ANNOUNCED):
                self.announced = False
                jail.open()
            if self.qmp is not None and self.save_at is None and self._settled():
                self.save_at = time.monotonic() + _QUIET
        elif end == jail.errors:
            self.errors = (self.errors + data)[-_ERRORS:]
        else:
            return self._verdict(data)
        return None

    def _verdict(self, data: bytes) -> dict[str, Any]:
        """Death that the jail's last message, or its silence, means."""
        message = json.loads(data.splitlines()[-1]) if data else {"error": "its jail was killed"}
        if message.get("exit") == 0:
            return {"cause": "guest", "detail": "the guest switched itself off", "self_ended": True}
        if "exit" in message:
            return {"cause": "crash", "detail": f"QEMU ended with {message['exit']}"}
        return {"cause": "crash", "detail": str(message.get("error"))}

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

    def record_death(self, death: dict[str, Any]) -> None:
        complaint = self.errors.decode("utf-8", "replace").strip()
        if complaint and death["cause"] == "crash":
            death = {**death, "detail": f"{death['detail']}: {complaint[-500:]}"}
        with contextlib.suppress(OSError):
            self.state.record_death(self.instance_dir, death)


def answer(line: str) -> None:
    """Print the one line that the creator waits for (keeper_process.py). A creator that waits no
    more ends no VM."""
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)  # noqa: T201


def detach() -> None:
    """Give up the creator's pipe, terminal and directory."""
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
        answer("held")
        return
    if keeper.instance_dir.read(state_dir.KEEPER) is not None:
        # A keeper was here before and was killed; its VM died with it and is never started again.
        death = {"cause": "crash", "detail": "its keeper was killed", "ended": time.time()}
        keeper.record_death(death)
        answer("dead")
        return
    jail = keeper.start()
    if isinstance(jail, str):
        keeper.record_death({"cause": "start", "detail": jail, "ended": time.time()})
        answer(f"error {' '.join(jail.split())}")
        return
    answer("running")
    detach()
    keeper.record_death(keeper.keep(jail))


if __name__ == "__main__":
    if os.fork() == 0:
        os.setsid()
        main(Path(sys.argv[1]))
