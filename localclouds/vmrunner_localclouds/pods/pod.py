"""One pod that runs: a thread that does what a kubelet does for it.

Its init containers one after another, then its containers, of which none is ever started again
(`restartPolicy: Never`); startup probes; its deadline; what came of each, in its status.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, cast

from vmrunner_localclouds.pods.bundle import Refused, Secrets, config, memory_limit
from vmrunner_localclouds.pods.images import Image, ImageError, Images
from vmrunner_localclouds.pods.memory import MemoryGroup
from vmrunner_localclouds.pods.node import PLACE, Node, descendants
from vmrunner_localclouds.pods.runtimes import Runc, Runsc, Runtime
from vmrunner_localclouds.pods.status import ContainerState, PodState
from vmrunner_localclouds.pods.volumes import Volumes

RETRY_PAUSE: Final = 2.0  # seconds until an image that could not be had is asked for again
KILL_GRACE: Final = 20.0  # seconds from KILL until a container must have ended
START_ERROR: Final = 128  # exit code of what could not be started, as containerd has it
_LOOK: Final = 0.02  # seconds between looks for the file that says that a container runs


class Execution:
    """A program beside a container's own: an exec stream."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.stdin = cast("IO[bytes]", process.stdin)
        self.stdout = cast("IO[bytes]", process.stdout)
        self.stderr = cast("IO[bytes]", process.stderr)

    def wait(self) -> int:
        """Wait for its end. Returns the exit code, 128 and more for a signal."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        """End it, and what it started in the container."""
        _kill_all(self._process)

    def close(self) -> None:
        """End it, and let go of its files."""
        self.kill()
        for file in (self.stdin, self.stdout, self.stderr):
            with suppress(BrokenPipeError):
                file.close()
        self._process.wait()


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a program of the node's with all below it."""
    for pid in reversed(descendants(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()


class _Container:
    """One container: what it is, and its process."""

    def __init__(self, document: Mapping[str, Any], pod: str, directory: Path) -> None:
        self.document = document
        self.name = str(document["name"])
        self.id = f"{pod}.{self.name}"
        self.directory = directory / self.name
        self.directory.mkdir(parents=True)
        self.state = ContainerState(self.name, str(document["image"]), id=self.id)
        self.image: Image | None = None
        self.group: MemoryGroup | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.probe: subprocess.Popen[bytes] | None = None
        self.probe_at = 0.0
        self.failures = 0

    @property
    def log(self) -> Path:
        return self.directory / "log"


class RunningPod:
    """A pod from its start to `close`."""

    def __init__(
        self,
        name: str,
        pod: Mapping[str, Any],
        *,
        key: str,
        directory: Path,
        node: Node,
        images: Images,
        secrets: Secrets,
        runtime: str,
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self._pod = pod
        self._id = key
        self._directory = directory
        self._place = f"{PLACE}/{key}"
        self._node = node
        self._images = images
        self._secrets = secrets
        self._on_change = on_change
        spec = pod["spec"]
        hostname = str(spec.get("hostname", name))
        self._runtime: Runtime = (
            Runc(key) if runtime == "runc" else Runsc(key, directory / "sandbox", node, hostname)
        )
        if spec.get("restartPolicy", "Always") != "Never":
            raise ValueError(f"{name}: restartPolicy is known of Never alone")
        if any(spec.get(k) for k in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")):
            raise ValueError(f"{name}: a pod here shares no namespace, and none of the host's")
        self._inits = [_Container(c, key, directory) for c in spec.get("initContainers", ())]
        self._containers = [_Container(c, key, directory) for c in spec["containers"]]
        self._volumes: Volumes | None = None
        self._lock = threading.Lock()
        self._state = PodState(
            time.time(),
            [container.state for container in self._inits],
            [container.state for container in self._containers],
        )
        self._began = time.monotonic()
        self._limit: float | None = spec.get("activeDeadlineSeconds")
        self._stop_at: float | None = None  # when KILL follows TERM
        self._killed_at: float | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ended = threading.Event()
        self._shown = ""
        self._thread = threading.Thread(target=self._run, name=f"pod {name}", daemon=True)
        self._thread.start()

    # --- what others ask ---------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return its `PodStatus`."""
        with self._lock:
            return self._state.document(time.time())

    def exec(self, container: str, command: Sequence[str]) -> Execution:
        """Start a program beside those of a container. Raises LookupError where it does not
        run."""
        found = self._find(container)
        if not found.state.running:
            raise LookupError(f"container {container} of {self.name} does not run")
        return Execution(self._exec(found, command, subprocess.PIPE))

    def log(self, container: str) -> bytes:
        """All that a container wrote to stdout and stderr."""
        path = self._find(container).log
        return path.read_bytes() if path.exists() else b""

    def dial(self, port: int) -> socket.socket:
        """A connection to a port on the pod's loopback, as its node makes it. In a gVisor pod,
        whose network is its own, none answers. Raises OSError."""
        return self._node.dial(self._id, port)

    def kill(self, container: str) -> None:
        """Kill all of a container, as its node may."""
        self._signal(self._find(container), "KILL")

    def limit(self, seconds: float) -> None:
        """Lower `activeDeadlineSeconds`."""
        with self._lock:
            self._limit = seconds if self._limit is None else min(self._limit, seconds)
        self._ring()

    def stop(self, grace: float) -> None:
        """Tell all containers to end, and kill them after that many seconds. Returns when they
        have ended."""
        with self._lock:
            at = time.monotonic() + grace
            self._stop_at = at if self._stop_at is None else min(self._stop_at, at)
        self._ring()
        if not self._ended.wait(grace + KILL_GRACE + 10):
            raise OSError(f"pod {self.name} does not end")

    def close(self) -> None:
        """End it now; leave nothing of it but its directory."""
        self.stop(0)
        self._thread.join()
        with suppress(OSError):
            os.close(self._wake)
        self._wake = -1

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._begin()
            for container in self._inits:
                if not self._start(container) or not self._follow([container]):
                    return
                if container.state.code:
                    return
            for container in self._containers:
                if not self._start(container):
                    return
            self._follow(self._containers)
        except _Stopped:
            pass
        except OSError as error:
            self._fail("ContainerCannotRun", str(error))
        finally:
            self._finish()

    def _begin(self) -> None:
        address = self._node.connect(self._id)
        with self._lock:
            self._state.address = address
        self._changed()  # whoever walls it in has done so before anything of it runs
        while True:
            try:
                for container in (*self._inits, *self._containers):
                    self._have_image(container)
                self._volumes = Volumes(
                    self._pod,
                    place=self._place,
                    disk=self._directory / "volumes",
                    secrets=self._secrets,
                    node=self._node,
                )
                break
            except (ImageError, Refused) as error:
                for container in (*self._inits, *self._containers):
                    if container.image is None or isinstance(error, Refused):
                        container.state.waiting = error.reason, str(error)
                        break
            self._changed()
            self._pause(None if self._volumes is None and self._images_are_here() else RETRY_PAUSE)
        limits = [memory_limit(container.document) for container in self._containers]
        self._runtime.begin(self._volumes.hints(), sum(limits) if all(limits) else 0)

    def _images_are_here(self) -> bool:
        return all(c.image for c in (*self._inits, *self._containers))

    def _have_image(self, container: _Container) -> None:
        if container.image is None:
            names = [entry["name"] for entry in self._pod["spec"].get("imagePullSecrets", ())]
            logins = [self._secrets.get(name, {}).get(".dockerconfigjson", b"") for name in names]
            container.image = self._images.get(
                container.state.image,
                always=container.document.get("imagePullPolicy") == "Always",
                login=next(filter(None, logins), b""),
            )
            container.state.digest = container.image.digest

    def _start(self, container: _Container) -> bool:
        """Start it. False: it cannot be configured, and the pod was told to end meanwhile."""
        image, volumes = container.image, self._volumes
        assert image is not None
        assert volumes is not None
        self._check_wanted()
        root = f"{self._place}/{container.name}"
        try:
            document = config(
                container.document,
                image,
                root=f"{root}/root",
                mounts=[*self._files(), *volumes.mounts(container.document)],
                secrets=self._secrets,
                hostname=self._pod["spec"].get("hostname", self.name),
            )
        except Refused as error:
            container.state.waiting = error.reason, str(error)
            self._changed()
            self._pause(None)
            return False
        container.group = self._runtime.fit(document, container.id)
        (container.directory / "config.json").write_text(json.dumps(document))
        upper, work = container.directory / "upper", container.directory / "work"
        upper.mkdir()
        work.mkdir()
        options = f"lowerdir={image.root},upperdir={upper},workdir={work}"
        self._node.shell(f"mkdir -p {root}/root; mount -t overlay -o {options} root {root}/root")
        running = container.directory / "pid"
        words = ["run", "--bundle", str(container.directory), "--pid-file", str(running)]
        trouble = container.directory / "trouble"
        with container.log.open("ab") as log:
            container.process = self._node.start(
                [*self._runtime.options, "--log", str(trouble), *words, container.id],
                stdout=log,
                stderr=log,
            )
        while not running.exists() and container.process.poll() is None:
            time.sleep(_LOOK)
        now = time.time()
        if not running.exists():
            message = trouble.read_text() if trouble.exists() else ""
            message = message or container.log.read_text(errors="replace")
            container.state.end(START_ERROR, now, reason="StartError", message=message[-1000:])
            self._changed()
            return True
        container.state.began = now
        container.state.started = "startupProbe" not in container.document
        self._changed()
        return True

    def _files(self) -> list[dict[str, Any]]:
        """Mounts of what a kubelet writes for each pod: names and name servers."""
        dns = self._pod["spec"].get("dnsConfig", {}).get("nameservers", ())
        host = self._pod["spec"].get("hostname", self.name)
        texts = {
            "hosts": f"127.0.0.1\tlocalhost\n{self._state.address}\t{host}\n",
            "hostname": f"{host}\n",
            "resolv.conf": "".join(f"nameserver {server}\n" for server in dns),
        }
        mounts = []
        for name, text in texts.items():
            path = self._directory / "etc" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            bind = {"type": "bind", "source": str(path), "options": ["rbind", "ro"]}
            mounts.append({"destination": f"/etc/{name}", **bind})
        return mounts

    def _follow(self, containers: Sequence[_Container]) -> bool:
        """Mind these until all have ended. False: the pod was told to end."""
        while running := [c for c in containers if c.state.ended is None]:
            self._look(running)
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            pidfds = [os.pidfd_open(c.process.pid) for c in running if c.process is not None]
            try:
                for pidfd in pidfds:
                    poll.register(pidfd, select.POLLIN)
                poll.poll(self._patience(running) * 1000)
            finally:
                for pidfd in pidfds:
                    os.close(pidfd)
            self._hear()
            for container in running:
                self._mind(container)
        return self._stop_at is None

    def _patience(self, running: Sequence[_Container]) -> float:
        """Seconds until something is due."""
        now = time.monotonic()
        due = [now + 3600.0]
        if self._limit is not None and not self._state.reason:
            due.append(self._began + self._limit)
        if self._stop_at is not None:
            due.append(self._stop_at if self._killed_at is None else now + 1)
        for container in running:
            if container.probe is not None:
                due.append(now + _LOOK)
            elif not container.state.started:
                due.append(container.probe_at)
        return max(0.0, min(due) - now)

    def _look(self, running: Sequence[_Container]) -> None:
        """Do what is due: end by the deadline, kill after TERM."""
        now = time.monotonic()
        with self._lock:
            late = self._limit is not None and now >= self._began + self._limit
            if late and not self._state.reason:
                self._state.reason = "DeadlineExceeded"
                self._state.message = (
                    "Pod was active on the node longer than the specified deadline"
                )
                grace = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
                self._stop_at = min(self._stop_at or now + grace, now + grace)
            stop_at = self._stop_at
        if stop_at is None:
            return
        if now >= stop_at and self._killed_at is None:
            self._killed_at = now
            for container in running:
                self._signal(container, "KILL")
        elif self._killed_at is None:
            for container in running:
                if not (container.directory / "termed").exists():
                    (container.directory / "termed").touch()
                    self._signal(container, "TERM")
        elif now >= self._killed_at + KILL_GRACE:
            raise OSError(f"{running[0].id} survives KILL")

    def _mind(self, container: _Container) -> None:
        """Take note of its end, or go on with its probe."""
        assert container.process is not None
        code = container.process.poll()
        if code is not None:
            assert container.group is not None
            code = code if code >= 0 else 128 - code
            reason = "OOMKilled" if container.group.killed() else ""
            container.state.end(code, time.time(), reason=reason)
            self._changed()
        elif not container.state.started:
            self._probe(container)

    def _probe(self, container: _Container) -> None:
        probe = container.document["startupProbe"]
        now = time.monotonic()
        if container.probe is not None:
            if (code := container.probe.poll()) is None:
                return
            container.probe = None
            container.probe_at = now + probe.get("periodSeconds", 10)
            if code == 0:
                container.state.started = True
                self._changed()
                return
            container.failures += 1
            if container.failures >= probe.get("failureThreshold", 3):
                self._signal(container, "KILL")
        elif now >= container.probe_at:
            container.probe = self._exec(container, probe["exec"]["command"], subprocess.DEVNULL)

    def _exec(
        self, container: _Container, command: Sequence[str], files: int
    ) -> subprocess.Popen[bytes]:
        words = [*self._runtime.options, "exec", container.id, *command]
        return self._node.start(words, stdin=files, stdout=files, stderr=files)

    def _signal(self, container: _Container, name: str) -> None:
        self._node.run(*self._runtime.options, "kill", container.id, name, check=False)

    # --- its end -----------------------------------------------------------------------------

    def _check_wanted(self) -> None:
        self._hear()
        if self._stop_at is not None:
            raise _Stopped

    def _pause(self, seconds: float | None) -> None:
        """Wait so long, or for ever. Raises _Stopped when the pod is told to end."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            self._check_wanted()
            remaining = None if end is None else max(0.0, end - time.monotonic())
            select.select([self._wake], [], [], remaining)
        self._check_wanted()

    def _fail(self, reason: str, message: str) -> None:
        with self._lock:
            self._state.reason = self._state.reason or reason
            self._state.message = self._state.message or message

    def _finish(self) -> None:
        """Leave nothing of it on the node."""
        now = time.time()
        for container in (*self._inits, *self._containers):
            if container.process is not None:
                words = ["delete", "--force", container.id]
                self._node.run(*self._runtime.options, *words, check=False)
                container.process.wait()
                if container.probe is not None:
                    _kill_all(container.probe)
                    container.probe.wait()
            if container.state.running:
                container.state.end(137, now)
        self._runtime.end()
        for container in (*self._inits, *self._containers):
            if container.group is not None:
                container.group.close()
        self._node.shell(
            f"for mount in $(grep -o ' {self._place}[^ ]*' /proc/mounts); do"
            f" umount -l $mount; done; rm -rf {self._place}"
        )
        self._node.disconnect(self._id)
        for part in ("upper", "work"):
            for path in self._directory.glob(f"*/{part}"):
                shutil.rmtree(path, ignore_errors=True)
        self._changed()
        self._ended.set()

    def _changed(self) -> None:
        """Tell who wants to know, when the status is another."""
        shown = json.dumps(self.status())
        if shown != self._shown:
            self._shown = shown
            self._on_change()

    def _ring(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _find(self, name: str) -> _Container:
        for container in (*self._inits, *self._containers):
            if container.name == name:
                return container
        raise LookupError(f"{self.name} has no container {name}")


class _Stopped(Exception):
    """The pod was told to end before it had begun."""
