"""The life of a sandbox: a build without steps, from its request to its end."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest

import vmrunner
from tests.support.fake_runner import app, runner
from vmrunner.api.build import Build
from vmrunner.api.errors import BuildLost
from vmrunner.api.keywords import sandbox_request
from vmrunner.errors import ConfigError, Conflict, NotFinished, SandboxOver, VmrunnerError
from vmrunner.model import BuildState, InstanceState, Limits, Network, Reason, Result

pytestmark = pytest.mark.timeout(60)
__all__ = ["app", "runner"]
BOOT = Limits().booting


def created(runner: vmrunner.Runner, **options: Any) -> vmrunner.Sandbox:
    return vmrunner.Sandbox.create(runner=runner, **options)


def test_it_runs_until_it_is_killed_and_that_is_success(runner: vmrunner.Runner) -> None:
    with created(runner, ttl="5m", labels={"team": "a"}) as sandbox:
        row = sandbox.info().row
        assert (row.state, row.spec.network, row.submitter) == (
            BuildState.RUNNING,
            Network.NONE,
            None,
        )
        vm = runner.service.ledger.instances.get(row.instance)
        assert vm.state is InstanceState.BUSY
        assert vm.deadline == pytest.approx(vm.created_at + 300 + BOOT, abs=1)
        ready = row.phases[-1].started
        assert row.hold_until == pytest.approx(ready + 300, abs=1)
        listed = vmrunner.Sandbox.list(labels={"team": "a"}, runner=runner)
        assert [build.id for build in listed] == [sandbox.id]
        again = vmrunner.Sandbox.connect(sandbox.id[:12], runner=runner)
        assert again.id == sandbox.id
        assert sandbox.is_running()
    done = runner.wait(sandbox.id)
    assert (done.result, done.reason) == (Result.SUCCESS, Reason.USER)
    assert not sandbox.is_running()
    assert runner.service.ledger.instances.list(active=True) == []
    with pytest.raises(SandboxOver, match="success"):
        vmrunner.Sandbox.connect(sandbox.id, runner=runner)


def test_its_forwarded_ports_are_closed_with_it(runner: vmrunner.Runner) -> None:
    with created(runner, ttl="5m") as sandbox:
        address = sandbox.forward(8000).address
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_its_time_ends_it_as_success(runner: vmrunner.Runner) -> None:
    sandbox = created(runner, ttl=0.5)
    done = runner.wait(sandbox.id, timeout=30)
    assert (done.result, done.reason) == (Result.SUCCESS, Reason.DEADLINE)
    with pytest.raises(SandboxOver, match="over: success, deadline"):
        sandbox.run("true")


def test_it_is_extended_up_to_its_deadline_and_no_further(runner: vmrunner.Runner) -> None:
    with created(runner, ttl="5m", max_ttl="8m") as sandbox:
        first = sandbox.info().row.hold_until or 0.0
        assert sandbox.extend("2m").row.hold_until == pytest.approx(first + 120)
        vm = runner.service.ledger.instances.get(sandbox.info().row.instance)
        assert sandbox.extend("1h").row.hold_until == pytest.approx(vm.deadline)
        with pytest.raises(Conflict, match="deadline already"):
            sandbox.extend("1m")
        with pytest.raises(ConfigError, match="by: 0 s is no longer life"):
            sandbox.extend(0)
    with pytest.raises(Conflict, match="is over"):
        sandbox.extend("1m")


def test_an_owned_one_belongs_to_its_process(runner: vmrunner.Runner) -> None:
    with created(runner, owned=True) as sandbox:
        assert sandbox.info().row.submitter is not None


@pytest.mark.parametrize("owned", [None, 1, "yes"])
def test_what_is_no_flag_makes_no_sandbox(runner: vmrunner.Runner, owned: Any) -> None:
    with pytest.raises(ConfigError, match=r"owned: .* is neither true nor false"):
        created(runner, owned=owned)
    assert runner.list() == []


@pytest.mark.parametrize("number", ["KILL", None, 1.5, True])
def test_what_is_no_signal_is_not_sent(runner: vmrunner.Runner, number: Any) -> None:
    """`int(1.5)` is SIGHUP."""
    with created(runner) as sandbox, pytest.raises(ConfigError, match=r"number: .* whole number"):
        sandbox.send_signal("c1", number)


def test_no_command_starts_whose_output_nobody_takes(runner: vmrunner.Runner) -> None:
    with created(runner) as sandbox:
        for name in ("on_stdout", "on_stderr"):
            options: dict[str, Any] = {name: "print"}
            with pytest.raises(ConfigError, match=f"{name}: 'print' cannot be called"):
                sandbox.run("true", **options)


def test_one_key_is_one_sandbox(runner: vmrunner.Runner) -> None:
    with created(runner, idempotency_key="k") as sandbox:
        assert created(runner, idempotency_key="k").id == sandbox.id
        with pytest.raises(Conflict, match="other parameters"):
            created(runner, idempotency_key="k", ttl="1m")


def test_one_that_waits_too_long_is_cancelled(runner: vmrunner.Runner) -> None:
    runner.service.drain(off=False)
    with pytest.raises(NotFinished, match="was not ready within wait_timeout, and is cancelled"):
        created(runner, wait_timeout=0.5)
    (build,) = runner.list()
    runner.service.drain(off=True)
    done = runner.wait(build.id, timeout=20)
    assert (done.result, done.reason) == (Result.CANCELLED, Reason.USER)


def test_one_that_nobody_can_serve_is_cancelled(
    runner: vmrunner.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise VmrunnerError("the background engine ends as soon as it was started")

    with monkeypatch.context() as patch:
        patch.setattr(runner._host, "ensure", refuse)
        with pytest.raises(VmrunnerError, match="background engine"):
            created(runner)
    (build,) = runner.list()
    assert runner.wait(build.id, timeout=20).result is Result.CANCELLED


def test_a_vm_that_was_switched_off_inside_is_lost(
    runner: vmrunner.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with created(runner) as sandbox:
        lost = Build(replace(sandbox.info().row, result=Result.FAILURE), runner)
        with monkeypatch.context() as patch:
            patch.setattr(runner, "settled", lambda _: lost)
            with pytest.raises(BuildLost), sandbox.translated():
                raise SandboxOver("the VM is gone")


def test_a_build_is_no_sandbox(runner: vmrunner.Runner) -> None:
    build = runner.submit("say hello")
    with pytest.raises(Conflict, match="is a build"):
        vmrunner.Sandbox.connect(build.id, runner=runner)
    assert vmrunner.Sandbox.list(runner=runner) == []
    runner.wait(build.id)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ttl": 0}, "ttl: 0s leaves no time"),
        ({"ttl": "5m", "max_ttl": "4m"}, "max-ttl: 4m is shorter than the ttl 5m"),
        ({"ttl": "10h"}, "ttl: 10h and 15m to boot are above limits.max_ttl 4h"),
        ({"max_ttl": "10h"}, "max-ttl: 10h and 15m to boot are above limits.max_ttl 4h"),
        ({"network": ""}, "network: empty"),
        ({"container": ""}, "container: empty"),
        ({"provider": "nope"}, "provider"),
        ({"env": {"A": "x" * 200_000}}, "env: A has .* no process can be given more"),
        ({"secrets": {f"S{n}": b"x" * 60_000 for n in range(40)}}, "env: 40 variables take"),
    ],
)
def test_what_cannot_be_is_refused(
    runner: vmrunner.Runner, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(ConfigError, match=error):
        created(runner, **options)
    assert runner.list() == []


def test_an_option_of_builds_is_none_of_sandboxes() -> None:
    with pytest.raises(TypeError, match=r"no option 'timeout' of a sandbox \(here it is 'ttl'\)"):
        sandbox_request({"timeout": "5m"})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match="did you mean 'container'"):
        sandbox_request({"contianer": "x"})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        ("", {}, "command: empty"),
        ([], {}, "command: empty"),
        (["sleep", 5], {}, "command: 5 is not text"),
        (b"true", {}, "command: b'true' is not a list"),
        (["a\0b"], {}, "command: it holds a NUL byte"),
        ("true", {"cwd": "work"}, "cwd: 'work' is no path"),
        ("true", {"user": "a b"}, "user: 'a b' is no user's name"),
        ("true", {"user": "1000"}, "user: '1000' is a number .a name of the container's"),
        ("true", {"user": 5}, "user: 5 is not text"),
        ("true", {"timeout": 0}, "timeout: 0 s leaves no time"),
        ("true", {"stdin": "yes"}, "stdin: 'yes' is neither true nor false"),
        ("true", {"env": "A=1"}, "env: 'A=1' is not a mapping"),
        ("true", {"env": 5}, "env: 5 is not a mapping"),
        ("true", {"env": {"A B": "1"}}, "env"),
        ("x" * 200_000, {}, "command: .* is more than a command line holds"),
    ],
)
def test_a_command_that_cannot_be_is_refused(
    runner: vmrunner.Runner, command: Any, options: dict[str, Any], error: str
) -> None:
    from vmrunner.api.sandbox import command_order

    with pytest.raises(ConfigError, match=error):
        command_order(command, **{"env": {}, **options})
