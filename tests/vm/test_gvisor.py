"""Builds under gVisor in a real VM, of the image that has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.home import wait_until
from tests.vm.qemu_fixture import image
from tests.vm.test_session import Vm, booted
from vmrunner.model import ArtifactRule, Network, Reason, Result, Step
from vmrunner.session import End

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3000)]

LOOK = """
cat /proc/version; dmesg | head -n 1; uname -r
ls /sys/module 2>&1 | wc -l
ls /dev/vda /proc/kallsyms /sys/kernel/debug/tracing 2>/dev/null || echo no-kernel
mount -t tmpfs x /mnt 2>/dev/null || echo no-mount
touch /vmrunner/x 2>/dev/null || echo no-write
"""


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    with booted(tmp_path_factory.mktemp("gvisor"), image("gvisor")) as vm:
        yield vm


def run(vm: Vm, *scripts: str, **options: Any) -> End:
    return vm.run(*scripts, runtime="runsc", network=Network.NONE, **options)


def test_a_build_sees_gvisors_kernel_and_not_the_vms(vm: Vm) -> None:
    verdict = run(
        vm,
        LOOK,
        'echo "token $TOKEN"; [ "$(cat /run/secrets/TOKEN)" = "$TOKEN" ]; echo err >&2',
        "mkdir out; echo made >out/file; chown 1234 out; exit 7",
        secrets={"TOKEN": b"s3cr3t-value-of-a-token"},
        rules=[ArtifactRule(glob="out", always=True)],
    )
    assert (verdict.result, verdict.reason, verdict.exit_code) == (
        Result.FAILURE,
        Reason.EXIT_CODE,
        7,
    ), (verdict, vm.log)
    lines = vm.log.decode().splitlines()
    kernel = vm.connection.run("uname -r", timeout=60).stdout.decode().strip()
    assert "Starting gVisor" in lines[1]
    assert kernel
    assert kernel not in vm.log.decode()
    assert lines[-6:] == ["0", "no-kernel", "no-mount", "no-write", "token ***", "err"], lines
    assert (vm.artifacts / "out" / "file").read_text() == "made\n"
    container = vm.connection.run(
        "docker inspect -f '{{.HostConfig.Runtime}}' vmrunner-build", timeout=60
    )
    assert container.stdout == b"runsc\n"


def test_the_network_of_a_build_is_gvisors_own(vm: Vm) -> None:
    """With `open`: an interface, and a way to what listens in the VM's bridge."""
    vm.connection.run(
        "systemd-run -q --unit=answers python3 -m http.server --bind 0.0.0.0 8099", timeout=60
    )
    script = (
        "gateway=$(python3 -c 'import socket,struct; "
        '[print(socket.inet_ntoa(struct.pack("<L", int(f[2], 16)))) '
        'for f in map(str.split, open("/proc/net/route")) if f[1] == "00000000"]\'); '
        "python3 -c \"import socket; socket.create_connection(('$gateway', 8099), 20)\""
    )
    verdict = vm.run(script, runtime="runsc", network=Network.OPEN)
    assert (verdict.reason, verdict.exit_code) == (Reason.EXIT_CODE, 0), (verdict, vm.log)


def test_a_step_that_ignores_term_is_killed_at_its_timeout(vm: Vm) -> None:
    step = Step(run="trap '' TERM; echo begun; while :; do sleep 1; done", timeout=5)
    assert run(vm, steps=[step]).reason is Reason.STEP_TIMEOUT
    assert vm.log.startswith(b"begun\n")


def test_cancel_gives_it_time_to_end_and_brings_artifacts(vm: Vm) -> None:
    running = vm.start(
        "trap 'echo caught; touch mark; exit 0' TERM; echo begun; sleep 300 & wait",
        rules=[ArtifactRule(glob="mark", always=True)],
        runtime="runsc",
        network=Network.NONE,
    )
    wait_until(lambda: vm.log, seconds=120, what="its first line")
    running.session.stop(Reason.USER)
    end = running.wait(90)
    assert (end.result, end.reason) == (Result.CANCELLED, Reason.USER)
    assert b"caught" in vm.log
    assert (vm.artifacts / "mark").exists()


@pytest.mark.parametrize(
    ("script", "reason", "code"),
    [
        # All of the sandbox is killed, so nobody is left to exit with 5. The log's cap makes the
        # container's memory small: to fill it takes long under emulation.
        ("python3 -c 'bytes([1]) * (2 << 30)' || exit 5", Reason.OUT_OF_MEMORY, 137),
        ("fallocate -l 100G big; echo x >small", Reason.DISK_FULL, 1),
        ("kill -SEGV $$", Reason.SIGNAL, 139),
    ],
)
def test_what_used_up_the_machine_is_named(vm: Vm, script: str, reason: Reason, code: int) -> None:
    verdict = run(vm, script, timeout=240, log_bytes=3 << 29)
    assert (verdict.result, verdict.reason, verdict.exit_code) == (Result.FAILURE, reason, code)
