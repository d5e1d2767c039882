"""One VM: QEMU, an overlay that no other process can open, and the guest's metadata service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Final

from vmrunner.lib.local_images import LocalImage
from vmrunner_localclouds.vms import command_line
from vmrunner_localclouds.vms.command_line import GuestSpec
from vmrunner_localclouds.vms.metadata import Answer, MetadataServer

CONSOLE: Final = 64 * 1024  # bytes that are kept of the guest's serial output
_COMPLAINT: Final = 4096

#: Programs of ours that are started as files: as modules they would bring this whole package.
_HERE: Final = Path(__file__).resolve().parent


class Vm:
    """A VM, whose methods may be called from any thread; but QEMU dies with the thread that calls
    `start`. After `stop` it may start again, with its disk; after `kill` never."""

    def __init__(
        self,
        host: command_line.HostSpec,
        image: LocalImage,
        qemu_img: str,
        guest: GuestSpec,
        answer: Answer,
    ) -> None:
        self.guest = guest
        self._host = host
        self._image = image
        self._qemu_img = qemu_img
        self._answer = answer
        self._lock = threading.Lock()
        self._killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._metadata: MetadataServer | None = None
        self._overlay: int | None = None  # a descriptor: the disk, which has no name
        self._pipes: tuple[IO[bytes], ...] = ()
        self._console = b""
        self._complaint = b""

    def start(self) -> None:
        """Start QEMU, and return when it is started, or was killed before. Raises OSError when
        there is no room for its disk, or no program."""
        with self._lock:
            if self._killed:
                return
            self._metadata = MetadataServer(self._answer)
            if self._overlay is None:
                self._overlay = self._make_overlay()
            overlay, base = self._overlay, os.open(self._image.disk, os.O_RDONLY)
            seed = _in_memory(self.guest.seed) if self.guest.seed else None
            extra = () if seed is None else (seed,)
            port = str(self._metadata.port)
            forwarder = [sys.executable, "-I", "-S", str(_HERE / "forward.py"), port]
            try:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", str(_HERE / "spawn.py")),
                        *(str(os.getpid()), str(overlay), str(base)),
                        str(-1 if seed is None else seed),
                        *command_line.command(self._host, self.guest, forwarder),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(overlay, base, *extra),
                    start_new_session=True,  # a terminal's Ctrl-C is for us, who end it
                )
            finally:
                for file in (base, *extra):
                    os.close(file)
            assert self._process.stdout is not None
            assert self._process.stderr is not None
            self._pipes = (self._process.stdout, self._process.stderr)
            for pipe in self._pipes:
                os.set_blocking(pipe.fileno(), False)

    def poll(self) -> int | None:
        """Read its output. Returns the exit code once QEMU has ended: 0 when the guest switched
        itself off, below zero when a signal ended it."""
        with self._lock:
            if self._process is None:
                return None
            code = self._process.poll()
            self._listen()
            if code is not None:
                self._close()
            return code

    def stop(self) -> None:
        """Cut its power, and return when it is off. No ACPI event asks the guest to switch itself
        off, as a cloud would: what it has not written yet is lost. Its disk stays for `start`."""
        with self._lock:
            self._cut()

    def kill(self) -> None:
        """Kill it, and return when it is dead and its disk gone."""
        with self._lock:
            self._killed = True
            self._cut()
            if self._overlay is not None:
                os.close(self._overlay)
                self._overlay = None

    def freeze(self) -> None:
        """Stop it where it is: its memory stays. It does nothing more until `thaw`, or `kill`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    @property
    def console(self) -> bytes:
        """The end of the guest's serial output, at most `CONSOLE` bytes."""
        with self._lock:
            self._listen()
            return self._console

    @property
    def complaint(self) -> str:
        """The end of QEMU's own stderr."""
        return self._complaint.decode(errors="replace").strip()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process is not None:
                self._process.send_signal(number)

    # --- within, under the lock ---

    def _cut(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._listen()
        self._close()

    def _make_overlay(self) -> int:
        """The descriptor of a new overlay, whose file has no name any more."""
        with tempfile.TemporaryDirectory(prefix="vmrunner-vm-", dir=_scratch()) as place:
            overlay = Path(place) / "overlay.qcow2"
            size = max(self.guest.disk, self._image.virtual_size)
            done = subprocess.run(
                [
                    *(self._qemu_img, "create", "-q", "-f", "qcow2"),
                    *("-b", str(self._image.disk), "-F", "qcow2", str(overlay), str(size)),
                ],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if done.returncode:
                raise OSError(f"qemu-img: {done.stderr.strip()}")
            return os.open(overlay, os.O_RDWR)

    def _listen(self) -> None:
        if self._pipes:
            console, complaint = (pipe.fileno() for pipe in self._pipes)
            self._console = _more(console, self._console, CONSOLE)
            self._complaint = _more(complaint, self._complaint, _COMPLAINT)

    def _close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        self._pipes = ()
        if self._metadata is not None:
            self._metadata.close()
            self._metadata = None


def _more(pipe: int, tail: bytes, limit: int) -> bytes:
    """`tail` and what the pipe has by now, cut to the last `limit` bytes."""
    try:
        while data := os.read(pipe, 65536):
            tail = (tail + data)[-limit:]
    except BlockingIOError:
        pass
    return tail


def _in_memory(data: bytes) -> int:
    """The descriptor of a file without a name, opened for reading only, as QEMU wants."""
    made = os.memfd_create("seed")
    try:
        os.write(made, data)
        return os.open(f"/proc/self/fd/{made}", os.O_RDONLY)
    finally:
        os.close(made)


def _scratch() -> str:
    """A directory on a disk: /tmp is memory on many systems, and an overlay may grow to
    gigabytes."""
    return os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 - a directory of our own in there
