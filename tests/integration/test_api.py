"""The Python API over a fake cloud."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import vmrunner
from tests.support.http_service import service
from tests.support.scripted_app import CountedApp, Scripted, numbered, wait_until
from vmrunner.api.keywords import build_request
from vmrunner.config.settings import Settings
from vmrunner.model import BuildState, Reason, Result, Step
from vmrunner.providers.fake import Cloud, FakeProvider
from vmrunner.providers.fake.provider import WallClock
from vmrunner.session.job import Reporter, SessionJob


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[vmrunner.Runner]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    app = CountedApp(Settings.model_validate({"providers": {"fake": {"kind": "fake"}}}))
    before = set(threading.enumerate())
    with vmrunner.Runner(app=app) as runner:
        yield runner
    slots = [
        t for t in set(threading.enumerate()) - before if t.name.startswith(("look", "create"))
    ]
    wait_until(lambda: not any(slot.is_alive() for slot in slots))


@pytest.fixture(params=["ledger", "server"])
def anyone(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[vmrunner.Runner]:
    """A runner at a ledger, and one of a server that has it: both do the same."""
    if request.param == "ledger":
        yield request.getfixturevalue("runner")
        return
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with service(tmp_path) as http:
        http.runner._host.ensure("fake")
        with vmrunner.Runner(url=http.url, token=http.token()) as found:
            yield found


def lines(*texts: str) -> str:
    return "\n".join(texts)


def test_run_follows_and_waits(runner: vmrunner.Runner) -> None:
    heard: list[vmrunner.LogLine] = []
    build = runner.run(
        lines(*numbered(3)),
        on_log=heard.append,
        container="debian:trixie",
        labels={"team": "core"},
        timeout="5m",
    )
    assert [(line, line.seq) for line in heard] == [("line 1", 1), ("line 2", 2), ("line 3", 3)]
    assert all(isinstance(line, str) and line.time > 0 for line in heard)
    assert (build.result, build.reason, build.exit_code) == ("success", "exit_code", 0)
    assert build.finished
    assert build.phases[0].state is BuildState.QUEUED
    assert build.instance is not None
    assert build.instance.startswith("vm-")
    assert build.labels == {"team": "core"}
    assert build.cost > 0
    assert runner.app.ledger.instances.open() == [], "its VM is gone before run returns"


def test_a_list_is_one_command_and_steps_are_several(anyone: vmrunner.Runner) -> None:
    assert anyone.run(["exit", "0"]).spec.steps == (Step(argv=("exit", "0")),)
    build = anyone.run([Step(run="say a", name="one"), Step(argv=("say", "b"))])
    assert list(build.logs()) == ["a", "b"]


def test_a_failure_is_raised_or_returned(anyone: vmrunner.Runner) -> None:
    with pytest.raises(vmrunner.BuildFailed) as caught:
        anyone.run("exit 3")
    assert caught.value.exit_code == 3
    assert caught.value.build.result is Result.FAILURE
    assert list(caught.value.build.logs()) == []
    assert caught.value.hint == "its log: build.logs()"
    assert anyone.run("exit 3", check=False).exit_code == 3
    with pytest.raises(vmrunner.BuildLost):
        anyone.run("lose")


def test_submit_then_wait(anyone: vmrunner.Runner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    build = anyone.submit(lines("say a", f"until {go}", "say b"), name="mine", ttl="45m")
    assert build.state in tuple(BuildState)
    with pytest.raises(vmrunner.NotFinished):
        build.wait(timeout=0.3)
    with pytest.raises(TimeoutError):
        build.wait(timeout="200ms")
    go.touch()
    done = build.wait(timeout="20s")
    assert done.result is Result.SUCCESS
    assert done != build, "a snapshot never changes"
    assert not build.finished
    found = (build.refresh(), anyone.get("mine"), anyone.get(build.id[:12]))
    # Its cost is final, and its log in the store, only some time after.
    assert [(build.id, build.result) for build in found] == [(done.id, Result.SUCCESS)] * 3
    assert list(done.logs(after=1)) == ["b"]
    assert [b.id for b in anyone.list(active=False)] == [build.id]
    assert anyone.list(labels={"no": "such"}) == []


def test_logs_are_followed_while_they_grow(anyone: vmrunner.Runner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    build = anyone.submit(lines("say a", f"until {go}", "hex 62ff0a", "hex 63"))
    heard = []
    for line in build.logs(follow=True):
        heard.append(line)
        go.touch()
    assert heard == ["a", "b\ufffd", "c"]


def test_cancel(anyone: vmrunner.Runner) -> None:
    build = anyone.submit(lines("say a", "sleep 60"))
    next(iter(build.logs(follow=True)))
    assert build.cancel().id == build.id
    done = build.wait(timeout=20)
    assert (done.result, done.reason) == (Result.CANCELLED, Reason.USER)
    with pytest.raises(vmrunner.BuildCancelled):
        build.wait(check=True)


def test_an_exception_on_the_way_cancels_the_build(runner: vmrunner.Runner) -> None:
    def break_off(_: vmrunner.LogLine) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(lines("say a", "sleep 60"), on_log=break_off)
    (build,) = runner.list()
    assert (build.result, build.reason) == (Result.CANCELLED, Reason.USER)
    assert runner.app.ledger.instances.open() == []
    with pytest.raises(vmrunner.NotFinished, match="did not end within wait_timeout, and is canc"):
        runner.run("sleep 60", wait_timeout=0.3)
    assert runner.list()[0].result is Result.CANCELLED
    count = len(runner.list())
    with pytest.raises(vmrunner.ConfigError, match="wait_timeout: '' is not a duration"):
        runner.run("say a", wait_timeout="")
    with pytest.raises(vmrunner.ConfigError, match="is not UTF-8"):
        runner.get("\ud800")
    assert len(runner.list()) == count, "nothing was queued"


def test_artifacts(runner: vmrunner.Runner, tmp_path: Path) -> None:
    build = runner.run(
        lines("artifact dist/a.whl wheel", "artifact b.txt b"),
        artifacts=["dist/*", vmrunner.ArtifactRule(glob="b.txt", always=True)],
    )
    assert [(a.path, a.size) for a in build.artifacts.ls()] == [("b.txt", 1), ("dist/a.whl", 5)]
    (path,) = build.artifacts.download(tmp_path / "to", "dist/a.whl")
    assert path.read_text() == "wheel"
    assert len(build.artifacts.download(tmp_path / "to")) == 2
    with pytest.raises(vmrunner.NotFound, match="no artifact 'c'"):
        build.artifacts.download(tmp_path / "to", "c")
    # A link is an artifact too, and what it leads to is not walked through.
    (directory,) = runner.app.paths.artifacts.glob(f"{build.id}.*")
    (directory / "latest").symlink_to("dist")
    assert [a.path for a in build.artifacts.ls()] == ["b.txt", "dist/a.whl", "latest"]
    (copy,) = build.artifacts.download(tmp_path / "to", "latest")
    assert copy.readlink() == Path("dist")


def test_idempotency(anyone: vmrunner.Runner) -> None:
    first = anyone.run("say a", idempotency_key="k")
    assert anyone.run("say a", idempotency_key="k").id == first.id
    with pytest.raises(vmrunner.Conflict, match="belongs to build"):
        anyone.submit("say b", idempotency_key="k")


def test_waiting_for_anothers_build_by_key_does_not_end_it(
    anyone: vmrunner.Runner, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    build = anyone.submit(f"until {go}", idempotency_key="k")
    with pytest.raises(vmrunner.NotFinished):
        anyone.run(f"until {go}", idempotency_key="k", wait_timeout=0.3)
    go.touch()
    assert build.wait(timeout=20).result is Result.SUCCESS


def test_what_attempts_say_counts_together(
    runner: vmrunner.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cap for the log of all of them; and each event says whose it is."""
    caps: list[int] = []

    class Noted(Scripted):
        def __init__(self, job: SessionJob, reporter: Reporter) -> None:
            super().__init__(job, reporter)
            caps.append(job.log_bytes)

    monkeypatch.setattr(runner.app, "sessions", lambda: Noted)
    build = runner.run(lines("say 123456789", "lose"), retry_on_loss=True, check=False)
    assert (build.result, len(caps)) == (Result.ERROR, 3)
    assert [caps[0] - cap for cap in caps] == [0, 10, 20]
    events = runner.app.ledger.events.list(build.id)
    assert [e.data["attempt"] for e in events if e.kind == "step_started"] == [1, 2, 3]


def test_a_steps_timeout_is_a_duration_like_any_other(anyone: vmrunner.Runner) -> None:
    steps = [Step(run="exit 0", timeout="20m"), Step(run="exit 0", timeout=timedelta(minutes=1))]
    assert [step.timeout for step in anyone.run(steps).spec.steps] == [1200.0, 60.0]
    with pytest.raises(vmrunner.ConfigError, match="timeout of a step: 'soon'"):
        anyone.submit([Step(run="exit 0", timeout="soon")])


def test_wrong_keywords_and_values(anyone: vmrunner.Runner) -> None:
    with pytest.raises(TypeError, match=r"no option 'timeuot' .*did you mean 'timeout'"):
        anyone.run("say a", timeuot="5m")  # type: ignore[call-arg]
    with pytest.raises(vmrunner.ConfigError, match="timeout: 'soon'") as caught:
        anyone.submit("say a", timeout="soon")
    assert caught.value.hint
    with pytest.raises(vmrunner.ConfigError, match="command: missing"):
        anyone.run("")
    with pytest.raises(vmrunner.NotFound):
        anyone.get("nope")
    assert anyone.list() == []


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ({"limit": 10**30}, "limit: 1000"), ({"limit": -1}, "limit: -1"), ({"limit": "x"}, "limit"),
        ({"state": 5}, "state: 5 is not text"), ({"result": 5}, "result: 5 is not text"),
        ({"actor": 5}, "actor: 5 is not text"), ({"labels": 5}, "labels: 5 is not a mapping"),
        ({"labels": {"a": 5}}, "labels: a: 5 is not text"), ({"active": "no"}, "active: 'no'"),
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_is_refused(
    anyone: vmrunner.Runner, words: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(vmrunner.ConfigError, match=refusal):
        anyone.list(**words)


def test_what_cannot_take_a_line_starts_nothing(anyone: vmrunner.Runner) -> None:
    with pytest.raises(vmrunner.ConfigError, match="on_log: 5 cannot be called"):
        anyone.run("say a", on_log=5)  # type: ignore[arg-type]
    assert anyone.list() == []


def test_a_filter_that_there_is_not_lists_nothing(anyone: vmrunner.Runner) -> None:
    with pytest.raises(TypeError, match=r"no filter 'lable' .*did you mean 'labels'"):
        anyone.list(lable={"team": "core"})  # type: ignore[call-arg]
    with pytest.raises(vmrunner.ConfigError, match="tag: 5 is not text"):
        anyone.audit(tag=5, older_than="6h")  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [10**30, -1, "x", None, 1.5, True])
@pytest.mark.parametrize("follow", [False, True])
def test_what_is_no_number_of_a_line_is_refused(
    anyone: vmrunner.Runner, after: Any, follow: bool
) -> None:
    build = anyone.run("say a")
    with pytest.raises(vmrunner.ConfigError, match="after: "):
        list(build.logs(after=after, follow=follow))


def test_secrets(anyone: vmrunner.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    build = anyone.submit(lines("say a"), secrets=["TOKEN"])
    assert build.spec.secrets == ("TOKEN",)
    assert anyone.submit("say a", secrets={"A": "x", "B": b"y"}).spec.secrets == ("A", "B")


def test_a_password_in_a_source_is_used_and_not_kept(
    anyone: vmrunner.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[str] = []

    def spool(source: str, path: Path, *, most: int) -> None:
        packed.append(source)
        path.touch()

    monkeypatch.setattr("vmrunner.services.sources.spool", spool)
    url = "git+https://user:hunter2@host/a@main"
    build = anyone.run("say x", source=url, idempotency_key="k")
    assert packed == [url]
    assert build.spec.source == "git+https://host/a@main"
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert any(b"git+https://host/a@main" in path.read_bytes() for path in files)
    assert not any(b"hunter2" in path.read_bytes() for path in files)


def test_source_is_packed_and_stored_at_submit(runner: vmrunner.Runner, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("x")
    go = tmp_path / "go"
    build = runner.submit(f"until {go}", source=source)
    assert list(runner.app.paths.sources.iterdir()) == [], "the spool is left"
    packed = runner.app.sources().fetch(runner.app.ledger.builds.get(build.id))
    assert packed is not None
    assert packed.stat().st_mode & 0o777 == 0o600
    with tarfile.open(packed) as tar:
        assert tar.getnames() == ["f"]
    go.touch()
    build.wait(timeout=20)


def test_house_keeping(runner: vmrunner.Runner) -> None:
    runner.run("say a")
    assert runner.reap(dry_run=True).lines == ()
    assert runner.audit() == []
    assert {f.level.value for f in runner.doctor()} <= {"ok", "warning"}


def test_what_submit_queued_is_left_to_a_background_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    app = CountedApp(Settings.model_validate({"providers": {"fake": {"kind": "fake"}}}))
    with vmrunner.Runner(app=app) as runner:
        runner.submit(lines("say a", "sleep 60"))
    assert app.background.count == 1
    with vmrunner.Runner(app=app) as runner:
        runner.list()[0].cancel()
    assert app.background.count == 1, "only who served hands over"


def a_wiring() -> CountedApp:
    return CountedApp(Settings.model_validate({"providers": {"fake": {"kind": "fake"}}}))


def test_what_another_runner_waits_for_starts_no_background_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would know nothing of a test's own sessions, and take the next builds of the ledger."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    apps, cloud = [a_wiring() for _ in range(3)], Cloud(WallClock())
    monkeypatch.setattr(CountedApp, "open_provider", lambda _, name: FakeProvider(name, cloud))
    go, results = tmp_path / "go", []

    def wait(app: CountedApp) -> None:
        with vmrunner.Runner(app=app) as runner:
            results.append(runner.run(f"until {go}", wait_timeout=30).result)

    threads = [threading.Thread(target=wait, args=(app,)) for app in apps[1:]]
    with vmrunner.Runner(app=apps[0]) as first:
        first.run("say a")
        for thread in threads:
            thread.start()
        wait_until(lambda: all(b.state is BuildState.RUNNING for b in first.list(active=True)))
        wait_until(lambda: len(first.list(active=True)) == 2)
    go.touch()
    for thread in threads:
        thread.join(60)
    assert results == [Result.SUCCESS] * 2
    assert [app.background.count for app in apps] == [0, 0, 0]


@pytest.mark.parametrize(("others", "started"), [(0, 1), (1, 0)])
def test_what_its_engine_drove_is_handed_over_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int, started: int
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    app, other = a_wiring(), vmrunner.Runner(app=a_wiring())
    with vmrunner.Runner(app=app) as runner:
        runner.run("say a")
        entered, _ = runner.enter(build_request("sleep 60", {}))  # as of a process that has ended
        wait_until(lambda: runner.get(entered.id).state is BuildState.RUNNING)
        for _ in range(others):
            other.submit("sleep 60")
    assert app.background.count == started
    for build in other.list(active=True):
        build.cancel()
    other.close()


def test_many_threads_may_use_one_runner(anyone: vmrunner.Runner) -> None:
    codes: list[int | None] = []

    def work(code: int) -> None:
        codes.append(anyone.run(f"exit {code}", check=False).exit_code)

    threads = [threading.Thread(target=work, args=(code,)) for code in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(code for code in codes if code is not None) == [0, 1, 2, 3]


def test_run_uses_the_configuration_and_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("VMRUNNER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmrunner.toml").write_text("[providers.mine]\nkind = 'fake'\n")
    monkeypatch.setattr("vmrunner.api.runner.App", CountedApp)
    build = vmrunner.run("say a", on_log=print)
    assert build.spec.provider == "mine"
    assert list(build.logs()) == ["a"], "a handle works after its runner was closed"
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "engine"])
