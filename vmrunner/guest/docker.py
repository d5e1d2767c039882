"""The few calls of Docker's API that one container needs, over its Unix socket.

Spoken as HTTP/1.0, one request a connection: the answer then ends where the connection does, which
makes a client of twenty lines. The docker command would cost a second of start-up under
emulation for each call, and would hold the build's output.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from . import userns as remap
from .container_files import run
from .state import ContainerError

if TYPE_CHECKING:
    from .command_group import CommandGroup
    from .pull import Pull
    from .runtime import ContainerWord
    from .state import EventLog, Place

SOCKET = "/run/docker.sock"
NAME = "vmrunner-build"

KILL_GRACE = 60.0  # seconds from KILL to "it will not die"

# So that root in the container can unpack archives, install packages and end its own processes.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "KILL"]
PROCESSES = 4096
EXEC = 10  # seconds; what is not heard by then is killed anyway
NO_METADATA = "metadata.nft"  # loaded before any step starts
ROOT_RESERVE = 320 << 20  # memory kept for sshd, dockerd and the supervisor


def call(method: str, path: str, body: object = None, *, timeout: float = 60) -> Any:
    """Send one request and return the decoded answer, None when it is empty."""
    connection = send(method, path, body, timeout=timeout)
    with connection:
        return answer(connection)


def send(
    method: str, path: str, body: object = None, *, timeout: float = 60, header: str = ""
) -> socket.socket:
    """A connection on which the answer will come. `SOCKET` is systemd's: connecting waits for
    dockerd to start."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n{header}\r\n"
    )
    try:
        connection.connect(SOCKET)
        connection.sendall(head.encode() + data)
    except OSError as error:
        connection.close()
        raise ContainerError(0, f"dockerd cannot be reached: {error}") from error
    return connection


def answer(connection: socket.socket) -> Any:
    """Return the answer that came back on the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except OSError as error:
        raise ContainerError(0, f"dockerd did not answer: {error}") from error
    return decoded(b"".join(parts))


def decoded(response: bytes) -> Any:
    """The answer in a whole response; None when it is empty."""
    head, _, body = response.partition(b"\r\n\r\n")
    try:
        status = int(head.split(None, 2)[1])
        value = json.loads(body) if body.strip() else None
    except (IndexError, ValueError) as error:
        raise ContainerError(0, "dockerd closed the connection") from error
    if status >= 400:
        message = value.get("message", "") if isinstance(value, dict) else ""
        raise ContainerError(status, str(message) or f"status {status}")
    return value


def received(connection: ContainerWord) -> bytes:
    """Bytes that have come on the connection; b"" at its end."""
    try:
        return connection.recv(65536)
    except OSError as error:
        raise ContainerError(0, f"dockerd did not answer: {error}") from error


def wait(place: Place) -> socket.socket:
    """A connection whose answer has its head at once, its body when the container has ended."""
    return send("POST", f"/containers/{NAME}/wait")


def exit_code(response: bytes, job: dict[str, Any], events: EventLog) -> int:
    """Return the exit code from Docker's answer to a wait. Its head comes first: a dockerd that
    dies leaves it alone."""
    answer = decoded(response)
    if not isinstance(answer, dict) or "StatusCode" not in answer:
        raise ContainerError(0, "dockerd ended in the middle of an answer")
    return int(answer["StatusCode"])


def lay_out(place: Place, job: dict[str, Any], work: str) -> None:
    """Prepare what a container of this shape needs, whatever is to run in it."""
    wake()
    run("nft", "-f", os.path.join(os.path.dirname(__file__), NO_METADATA))
    os.makedirs(work, 0o755, exist_ok=True)
    make_volume(place.spool, int(str(job["log_bytes"])) + (4 << 20))
    if job["runtime"] != "runc" and not os.path.ismount(place.shown):
        run("mount", "-o", "bind,ro", place.box, place.shown)


def wake() -> None:
    """Let dockerd start beside what comes first: it takes seconds."""
    try:
        with socket.socket(socket.AF_UNIX) as waking:
            waking.connect(SOCKET)  # systemd listens there, and no program starts for it
    except OSError:
        run("systemctl", "start", "--no-block", "docker.service", check=False)


def make_volume(path: str, size: int) -> None:
    """Mount a tmpfs there, unless there is one."""
    if not os.path.ismount(path):
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "vmrunner", path)


def enter(place: Place, work: str) -> None:
    """Go where the container sees its files, as root there."""
    from . import syscalls
    from .command import container_pid

    syscalls.enter_container(container_pid(place))


def reach(place: Place) -> None:
    from .command import container_pid

    container_pid(place)


def by_programs(path: str, work: str) -> None:
    return None


def path_inside(path: str, work: str) -> str:
    return path


def enter_network(place: Place) -> None:
    """Go where the container has its network."""
    from . import syscalls
    from .command import container_pid

    descriptor = os.open(f"/proc/{container_pid(place)}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.set_namespace(descriptor)
    os.close(descriptor)


def is_crowded(place: Place) -> bool:
    from .command import container_pid
    from .command_group import is_full

    return is_full(container_pid(place))


def command_group(place: Place, name: str, tell: int, shell: int) -> CommandGroup:
    """A group for the shell of a command that has that FIFO open."""
    from .command import container_pid, shell_of
    from .command_group import CommandGroup

    root = container_pid(place)
    return CommandGroup.make(root, name, shell_of(root, os.fstat(tell)))


def saved_group(place: Place, path: str) -> CommandGroup:
    from .command_group import CommandGroup

    return CommandGroup.load(path)


def create(job: dict[str, Any], place: Place, work: str) -> None:
    """Make the container, unless there is one: a process that died may have had it made."""
    body = container(job, place=place, work=work)
    try:
        call("POST", f"/containers/create?name={NAME}", body, timeout=120)
    except ContainerError as error:
        if error.status != 409:
            raise


def is_there() -> bool:
    """True if somebody listens, maybe for a dockerd that starts then."""
    return os.path.exists(SOCKET)


def start(place: Place) -> None:
    call("POST", f"/containers/{NAME}/start", timeout=120)


def remove() -> None:
    """Kill the container and remove it."""
    call("DELETE", f"/containers/{NAME}?force=1", timeout=120)


def inspect() -> dict[str, Any]:
    """Docker's document of the container."""
    found = call("GET", f"/containers/{NAME}/json")
    if not isinstance(found, dict):
        raise ContainerError(0, "dockerd ended in the middle of an answer")
    return found


def first(place: Place) -> tuple[str, int]:
    """The container's id, and its first process as we see it. Raises ContainerError."""
    try:
        found = inspect()
        return str(found["Id"]), int(found["State"]["Pid"])
    except (KeyError, TypeError, ValueError) as error:
        raise ContainerError(0, "Docker knows no process of it") from error


def kill(place: Place) -> None:
    """Kill all of it at once. Docker refuses when it is gone already, and when so much had to die
    that no end was seen in time: who waits for the end finds out either."""
    try:
        call("POST", f"/containers/{NAME}/kill?signal=KILL")
    except ContainerError as error:
        if not error.status:
            raise


def saw_oom() -> bool:
    """True if Docker knows that the container ended for want of memory."""
    try:
        state = inspect()["State"]
    except ContainerError:
        return False
    return bool(state.get("OOMKilled"))


def pull(name: str, login: str) -> Pull:
    from .pull import Pull

    return Pull(name, login)


def terminate(place: Place) -> None:
    """TERM to all processes in the container but its first, sent from inside: the processes of a
    sandbox are not the VM's."""
    request = {"Cmd": ["/bin/sh", "-c", "kill -TERM -1"], "User": "0:0"}
    made = call("POST", f"/containers/{NAME}/exec", request, timeout=EXEC)
    call("POST", f"/exec/{made['Id']}/start", {"Detach": True}, timeout=EXEC)


def images() -> list[str]:
    """The names of the container images that this VM has."""
    found = call("GET", "/images/json") or []
    return sorted(tag for image in found for tag in image.get("RepoTags") or ())


def container(job: dict[str, Any], *, place: Place, work: str) -> dict[str, Any]:
    """The body of `POST /containers/create`. Neither environment nor secrets are in it: the
    driver reads them from the box, so `docker inspect` and Docker's files do not hold them.
    `place.shown` is a read-only mount of the box: gVisor opens no FIFO for writing on a volume that
    it is itself told to keep read-only."""
    memory = _memory(int(job["log_bytes"]))
    plain = job["runtime"] == "runc"
    driver = f"{place.box}:/vmrunner:ro" if plain else f"{place.shown}:/vmrunner"
    binds = [f"{work}:{work}", driver, f"{place.secrets}:/run/secrets:ro"]
    if job["docker"]:
        binds.append(f"{SOCKET}:/var/run/docker.sock")
    host: dict[str, Any] = {
        "Binds": binds,
        "LogConfig": {"Type": "none"},
        "NetworkMode": "none" if job["network"] == "none" else "bridge",
        "Runtime": job["runtime"],
        "Memory": memory,
        "MemorySwap": memory,
        "ShmSize": memory // 4,
        "PidsLimit": PROCESSES,
        "CpuShares": 512,  # half of what sshd and the supervisor weigh
        "OomScoreAdj": 500,
    }
    if job["privileged"]:
        host["Privileged"] = True
    else:
        host["CapDrop"] = ["ALL"]
        host["CapAdd"] = CAPABILITIES
        host["SecurityOpt"] = ["no-new-privileges"]
    if remap.shared(job):
        host["UsernsMode"] = "host"
    if job["docker"]:
        host["ExtraHosts"] = ["host.docker.internal:host-gateway"]
    return {
        "Image": job["container"],
        "Entrypoint": ["/bin/sh", "/vmrunner/driver.sh"],
        "Cmd": [],
        "User": "0:0",  # the work directory is root's, and the VM is the wall
        "WorkingDir": work,
        "Hostname": "build",
        "Labels": {"vmrunner.build": job["build"]},
        "HostConfig": host,
    }


def _memory(log_bytes: int) -> int:
    """Bytes the container may use: the VM's memory without our reserve and the log's tmpfs."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(total - max(ROOT_RESERVE, total // 8) - log_bytes, total // 3)
