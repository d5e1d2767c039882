"""Submit → first line of a build's output: cold, resumed and hot, beside the floors of the latter.

Resumed is measured twice: from a process that is there, as a program's or `serve`'s, and as a
command with a new ledger, whose start counts too, as it does for cold. The floor is what a person
would do by hand with the same template: start QEMU on a fresh overlay, load the state, hand the VM
its identity, then one `ssh … echo`. Hot is a build whose VM waits in a pool, as in `bench/hot.py`;
its floor is a command over an SSH connection that is open already. All take turns in one run, each
once that pool is full again: its VMs wait beside all others.

Before them, `--burst` VMs are resumed at once, by a process that is there and by hand: seconds
until the line of each, and CPU until then of all that runs them. What buyers compare is the second
table: one at a time and a burst, with the memory that each VM alone holds. Under emulation a
guest's own work is most of it, which the title says.

    .venv/bin/python bench/start.py [--rounds 20] [--burst 8]

A host takes a VM only where its disk could hold all that the VM may write: eight need 64 GiB, below
TMPDIR.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import clones, hot
from bench.first_line import first_line
from vmrunner import Runner
from vmrunner.images import templates as making
from vmrunner.images.template_vms import TemplateVms
from vmrunner.ledger import Ledger
from vmrunner.model import Network, Order, Shape, Spec, Start
from vmrunner.providers import qemu
from vmrunner.providers.qemu import launch_plan, seed, templates
from vmrunner.providers.qemu.command_line import SSH_PORT, QemuFd, QemuStart
from vmrunner.providers.qemu.identity_port import IdentityPort
from vmrunner.providers.qemu.launch_plan import VmPlan
from vmrunner.providers.qemu.provider import QemuProvider
from vmrunner.providers.qemu.qmp import Qmp
from vmrunner.providers.qemu.templates import Template

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vmrunner"
SHAPE = Shape(container="debian:trixie", runtime="runc", log_bytes=64 << 20)
SPEC = Spec(network=Network.NONE, disk=8 << 30, memory=1 << 30)
SMALL = ("--disk", "8GiB", "--memory", "1GiB")
RESUMED_GOAL, COLD_GOAL, BURST_GOAL = 1.2, 8.0, 1.5
_HIGH = 300  # descriptors from here on are none of QEMU's


@dataclass(frozen=True)
class Burst:
    """VMs that were resumed at once: seconds of each, CPU seconds of all until each one's line, and
    MiB that each held alone."""

    seconds: list[float]
    cpu: float
    memory: list[float] = field(default_factory=list)


def cpu_here() -> float:
    """CPU seconds of this process and of its children that ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def cpu_of(vm: str) -> float:
    """CPU seconds of the processes that name a VM (keeper, QEMU), with their dead children."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if vm.encode() in (path / "cmdline").read_bytes():
                ticks += sum(
                    map(int, (path / "stat").read_text().rpartition(")")[2].split()[11:15])
                )
    return ticks / os.sysconf("SC_CLK_TCK")


def burst_of_ours(place: Path, runner: Runner, many: int) -> Burst:
    """Resume so many by a process that is there."""
    used: list[float] = []

    def first(build: str) -> float:
        next(runner.lines(build, follow=True))
        seconds = time.monotonic() - began
        used.append(cpu_of(runner.get(build).instance or ""))
        return seconds

    with hot.home(place), ThreadPoolExecutor(many) as pool:
        before, began = cpu_here(), time.monotonic()
        builds = [
            runner.submit("echo hello; sleep 600", network="none", timeout="15m").id
            for _ in range(many)
        ]
        seconds = list(pool.map(first, builds))
        own = cpu_here() - before
        instances = [runner.app.ledger.instances.get(runner.get(b).instance or "") for b in builds]
        if {row.start for row in instances} != {Start.RESUMED}:
            raise SystemExit("of the burst some were not resumed")
        memory = [clones.memory(clones.qemu_of(row.id))[0] for row in instances]
        for build in builds:
            runner.cancel(build)
        for build in builds:
            runner.wait(build)
    return Burst(seconds, own + sum(used), memory)


def burst_by_hand(scratch: Path, vm: VmPlan, template: Template, order: Order, many: int) -> Burst:
    """Resume as many by hand."""
    folders = [scratch / f"burst-{number}" for number in range(many)]
    for place in folders:
        place.mkdir()
        keys(place)
    with ThreadPoolExecutor(many) as pool:
        before = cpu_here()
        work = [
            pool.submit(by_hand, place, vm, template, order, port=SSH_PORT + 1 + number, keyed=True)
            for number, place in enumerate(folders)
        ]
        return Burst([each.result() for each in work], cpu_here() - before)


def keys(place: Path) -> None:
    """Make the keys of a VM and of who speaks to it."""
    for name in ("user", "host"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True
        )


def by_hand(
    place: Path,
    vm: VmPlan,
    template: Template,
    order: Order,
    *,
    port: int = SSH_PORT,
    keyed: bool = False,
) -> float:
    """Seconds until the output of one `ssh`, of a clone without jail and keeper. Keys are made
    before the clock starts, or were then (`keyed`)."""
    assert order.identity is not None
    if not keyed:
        keys(place)
    host = (place / "host.pub").read_text()
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
    (place / "seed").write_bytes(seed.shape(None))
    identity = {
        "hostname": order.instance,
        "user_key": (place / "user.pub").read_text(),
        "host_key": (place / "host").read_text(),
        "host_public": host,
        "deadline": time.time() + 600,
        "network": "none",
    }
    ssh = [
        *("ssh", "-F", "none", "-i", str(place / "user"), "-p", str(port)),
        *("-o", f"UserKnownHostsFile={place / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"),
        *("-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR", "root@127.0.0.1", "echo", "hello"),
    ]
    began = time.monotonic()
    overlay = place / "disk.qcow2"
    made = launch_plan.overlay(vm.programs.qemu_img, template.disk, overlay, order.offer.disk)
    subprocess.run(made, check=True)
    channel, channel_there = socket.socketpair()
    qmp, qmp_there = socket.socketpair()
    given = {
        QemuFd.OVERLAY: os.open(overlay, os.O_RDWR),
        QemuFd.BASE: os.open(vm.image.disk, os.O_RDONLY),
        QemuFd.SEED: os.open(place / "seed", os.O_RDONLY),
        QemuFd.KERNEL: os.open(vm.image.kernel, os.O_RDONLY),
        QemuFd.INITRD: os.open(vm.image.initrd, os.O_RDONLY),
        QemuFd.RAM: os.open(template.ram, os.O_RDONLY),
        QemuFd.STATE: os.open(template.state, os.O_RDONLY),
        QemuFd.TEMPLATE: os.open(template.disk, os.O_RDONLY),
        QemuFd.CHANNEL: channel_there.fileno(),
        QemuFd.QMP: qmp_there.fileno(),
    }

    def place_descriptors() -> None:
        high = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, _HIGH) for number, fd in given.items()}
        for number, descriptor in high.items():
            os.dup2(descriptor, number)

    words = vm.words(QemuStart.RESUME, "by-hand")
    machine = subprocess.Popen(
        [word.replace(f"127.0.0.1:{SSH_PORT}-", f"127.0.0.1:{port}-") for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=place_descriptors,
    )
    try:
        Qmp(qmp, seconds=30).resume()
        IdentityPort(channel).tell(identity, now=time.time(), woken=True)
        channel.setblocking(True)
        channel.recv(64)
        while time.monotonic() - began < 120:
            done = subprocess.run(ssh, capture_output=True, check=False, stdin=subprocess.DEVNULL)
            if done.stdout == b"hello\n":
                return time.monotonic() - began
        raise SystemExit(f"by hand: no answer\n{done.stderr.decode()}")
    finally:
        machine.kill()
        machine.wait()
        for descriptor in list(given.values())[:-2]:
            os.close(descriptor)
        for end in (channel, channel_there, qmp, qmp_there):
            end.close()


def resumed(runner: Runner) -> float:
    seen: list[float] = []
    began = time.monotonic()
    build = runner.run(
        "echo hello", network="none", on_log=lambda _: seen.append(time.monotonic() - began)
    )
    start = runner.app.ledger.instances.get(build.instance or "").start
    if start is not Start.RESUMED:
        raise SystemExit(f"{build.id} started {start}, not resumed")
    return seen[0]


def resumed_at(place: Path, runner: Runner) -> float:
    with hot.home(place):
        return resumed(runner)


def template_of(provider: QemuProvider, place: Path) -> tuple[VmPlan, Template, Order]:
    """Its template, made if need be; `place`: of a ledger for its VMs."""
    ledger = Ledger.open(f"sqlite:///{place}/ledger.db", data_dir=place)
    vms = TemplateVms(ledger, provider, "bench")
    making.make(provider, SPEC, SHAPE, vms=vms)
    order, _ = making.order_for(provider, SPEC, SHAPE, vms)
    ledger.close()
    vm = provider.plan(order)
    key = vm.template_key()
    found = templates.find(CACHE, key, provider.verified) if key else None
    if found is None:
        raise SystemExit("there is no template")
    return vm, found, order


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--burst", type=int, default=8)
    options = parser.parse_args()
    rounds = options.rounds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the pool ends with us
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="vmrunner-bench-"))
        provider = qemu.open(
            "bench", state_dir=Path(scratch) / "state", cache_dir=CACHE, installation="bench"
        )
        vm, template, order = template_of(provider, Path(scratch) / "templates")
        own, pool = Path(scratch) / "own", Path(scratch) / "pool"
        (own / "config/vmrunner").mkdir(parents=True, mode=0o700)
        (own / "config/vmrunner/config.toml").write_text(hot.PROVIDER)
        pool.mkdir()
        stack.enter_context(hot.home(own))
        runner = stack.enter_context(Runner())
        resumed(runner)  # it makes the ledger
        bursts = {
            "resumed": burst_of_ours(own, runner, options.burst),
            "by hand": burst_by_hand(Path(scratch), vm, template, order, options.burst),
        }
        stack.enter_context(hot.serving(pool, hot.PROVIDER + hot.POOL))  # as all others here
        pooled = stack.enter_context(Runner())
        echo = stack.enter_context(hot.reused(pooled))
        ways: dict[str, Callable[[Path], float]] = {
            "hot": lambda _: hot.hot(pooled),
            "reused ssh": lambda _: echo(),
            "resumed": lambda _: resumed_at(own, runner),
            "resumed by a command": lambda place: first_line(place, *SMALL, templates=True),
            "by hand": lambda place: by_hand(place, vm, template, order),
            "cold": lambda place: first_line(place, *SMALL, templates=False),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds):
            for name, run in ways.items():
                place = Path(scratch) / f"{name.replace(' ', '-')}-{turn}"
                place.mkdir()
                hot.settle(pooled)
                times[name].append(run(place))
                print(f"{turn + 1}/{rounds} {name}: {times[name][-1]:.3f} s", file=sys.stderr)
        idle = [
            clones.memory(clones.qemu_of(row.id))[0]
            for row in pooled.app.ledger.instances.open()
            if row.build is None
        ]
    show(times)
    show_bought(times, bursts, idle, vm.accel)
    return 0


def show(times: dict[str, list[float]]) -> None:
    table = Table(title="submit → first line", title_justify="left")
    for name in ("start", "p50 s", "p95 s", "by hand ×: p50", "p95", "reused ssh ×: p50", "p95"):
        table.add_column(name, justify="left" if name == "start" else "right")
    hand, echo = (hot.middle_and_high(times[name]) for name in ("by hand", "reused ssh"))
    for name, found in times.items():
        both = hot.middle_and_high(found)
        ratios = [a / b for floor in (hand, echo) for a, b in zip(both, floor, strict=True)]
        table.add_row(name, *(f"{n:.3f}" for n in both), *(f"{ratio:.2f}" for ratio in ratios))
    console = Console()
    console.print(table)
    cold, resume = statistics.median(times["cold"]), statistics.median(times["resumed"])
    console.print(
        f"goals: resumed, by a command too, ≤ {RESUMED_GOAL} × by hand at p95; "
        f"hot ≤ {hot.GOAL} × a reused ssh at p50 and ≤ 2 × at p95; cold ≥ {COLD_GOAL} × resumed: "
        f"{cold / resume:.1f} ×; load {os.getloadavg()[0]:.1f}"
    )


def show_bought(
    times: dict[str, list[float]], bursts: dict[str, Burst], idle: list[float], accel: str
) -> None:
    """Show what buyers compare."""
    many = len(bursts["resumed"].seconds)
    how = "KVM" if accel == "kvm" else "emulated (TCG), which slows a guest's own work many times"
    cores = f"{os.cpu_count()} processors"
    table = Table(title=f"submit → first line, {how}, {cores}", title_justify="left")
    for name in ("start", "one: p50 s", "p95 s", f"{many} at once: p50 s", "p95 s", "MiB each"):
        table.add_column(name, justify="left" if name == "start" else "right")
    held = {"hot": idle, "resumed": bursts["resumed"].memory}
    for name in ("hot", "resumed", "by hand", "cold"):
        both = [*hot.middle_and_high(times[name])]
        both += hot.middle_and_high(bursts[name].seconds) if name in bursts else ()
        shown = [f"{seconds:.3f}" for seconds in both] + [""] * (4 - len(both))
        memory = held.get(name)
        table.add_row(name, *shown, f"{statistics.median(memory):.0f}" if memory else "")
    console = Console()
    console.print(table)
    ours, hand = bursts["resumed"].cpu, bursts["by hand"].cpu
    console.print(
        f"CPU of {many} at once until their lines: {ours:.1f} s, by hand {hand:.1f} s: "
        f"{ours / hand:.2f} × (goal {BURST_GOAL})"
    )


if __name__ == "__main__":
    sys.exit(main())
