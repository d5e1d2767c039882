"""What a build used: from the VM's last event to whoever asks."""

from __future__ import annotations

import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

import vmrunner
from tests.support.guest import Followed, Guest, job
from tests.support.http_service import Service, only
from tests.support.session_world import World
from tests.support.sshd import wait_for
from vmrunner.model import NO_USAGE, BuildUsage, HostUsage

LOOK = "build.Cgroup.look = lambda self: self.figures.update({})"
USES = ["use memory_peak 1048576\nuse cpu_seconds 2.5\nuse network_sent 300\nexit 3"]
USED = BuildUsage(memory_peak=1 << 20, cpu_seconds=2.5, network_sent=300)


def with_usage(http: Service) -> None:
    """Let who runs its VMs see what they use."""
    seen = HostUsage(cpu_seconds=4.0, disk=10 << 20)
    http.app.providers.get("fake").used = lambda _: seen  # type: ignore[attr-defined]


def test_a_session_brings_what_the_vm_says(world: World) -> None:
    world.guest.set(LOOK.format("memory_peak=5 << 20, cpu_seconds=1.5"))
    end = world.run("exit 3")
    assert end.exit_code == 3
    assert end.usage == BuildUsage(memory_peak=5 << 20, cpu_seconds=1.5)


def test_a_sandbox_tells_what_it_used(guest: Guest, tmp_path: Path) -> None:
    """It has no steps, after which that would be read."""
    mark = tmp_path / "looked"
    guest.set(LOOK.format(f"memory_peak=open({str(mark)!r}, 'w').write('x' * 7)"))
    argv = [guest.supervisor, "start", "--epoch", "1", "0", "0"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as follower:
        assert follower.stdin is not None
        follower.stdin.write(job(sandbox=True))
        follower.stdin.close()
        follower.stdin = None
        wait_for(mark.exists)
        guest.call("cancel", "user")
        output, _ = follower.communicate(timeout=30)
    ended = Followed(output).ended
    assert ended is not None
    assert ended.usage == BuildUsage(memory_peak=7)


def test_an_image_that_tells_nothing_leaves_all_unknown(world: World) -> None:
    world.guest.set(LOOK.format(""))
    assert world.run("true").usage == NO_USAGE


def test_document_page_client_and_ledger_have_it(http: Service) -> None:
    client = http.client()
    build = only(client.post("/api/v1/builds", json={"steps": USES}))["id"]
    assert http.ended(build).usage == USED
    assert only(client.get(f"/api/v1/builds/{build}"))["usage"] == {
        "memory_peak": 1 << 20, "cpu_seconds": 2.5, "disk_read": None, "disk_written": None,
        "network_received": None, "network_sent": 300, "vm_cpu_seconds": None, "vm_disk": None,
    }  # fmt: skip
    with vmrunner.Runner(url=http.url, token=http.token()) as runner:
        assert runner.get(build).usage == USED
    client.post("/login", data={"token": http.token()})
    page = client.get(f"/builds/{build}")
    assert "memory 1.0 MiB, CPU 2.5s, 300 B sent" in page.text


def test_metrics_sum_it_by_provider_without_what_is_unknown(http: Service) -> None:
    client = http.client()
    with_usage(http)
    client.get("/metrics")  # what ended before is not counted
    for steps in (USES, USES, ["exit 0"]):
        http.ended(only(client.post("/api/v1/builds", json={"steps": steps}))["id"])
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert samples["vmrunner_build_memory_peak_bytes_count", "fake"] == 2
    assert samples["vmrunner_build_memory_peak_bytes_sum", "fake"] == 2 << 20
    assert samples["vmrunner_build_cpu_seconds_sum", "fake"] == 5.0
    assert samples["vmrunner_build_network_bytes_total", "fake", "sent"] == 600
    assert samples["vmrunner_build_vm_cpu_seconds_sum", "fake"] == 12.0  # also of who said nothing
    assert samples["vmrunner_build_vm_disk_bytes_sum", "fake"] == 30 << 20
    assert ("vmrunner_build_disk_bytes_total", "fake", "read") not in samples


def test_a_sandbox_that_was_killed_has_it(http: Service) -> None:
    with_usage(http)
    with vmrunner.Sandbox.create(runner=http.runner) as sandbox:
        pass
    done = http.runner.wait(sandbox.id)
    assert (done.result, done.usage.vm_cpu_seconds) == (vmrunner.Result.SUCCESS, 4.0)


def test_a_lost_vm_leaves_null_and_no_zero(http: Service) -> None:
    client = http.client()
    lost = only(client.post("/api/v1/builds", json={"steps": ["use memory_peak 7", "lose"]}))["id"]
    http.ended(lost)
    assert set(only(client.get(f"/api/v1/builds/{lost}"))["usage"].values()) == {7, None}
