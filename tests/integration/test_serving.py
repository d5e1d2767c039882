"""Whoever waits for a build has an engine that can run it, whatever other engines there are."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

import vmrunner
from tests.support.scripted_app import CountedApp, ScriptedApp, wait_until
from vmrunner.config.settings import Settings
from vmrunner.engine.engine import Engine
from vmrunner.engine.membership import MEMBER_LEASE
from vmrunner.errors import LedgerError, VmrunnerError
from vmrunner.lib import ids, process
from vmrunner.model import STARTING, Process
from vmrunner.providers.fake import FakeProvider
from vmrunner.runtime import background, engine_host

SETTINGS = {"providers": {name: {"kind": "fake"} for name in ("fake", "other")}}


class HelpedApp(CountedApp):
    def served(self, *providers: str, staying: bool = False) -> bool:
        return background.served(self.ledger, providers, staying=staying)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HelpedApp]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    app = HelpedApp(Settings.model_validate(SETTINGS | {"default_provider": "fake"}))
    yield app
    app.close()


@pytest.fixture
def elsewhere() -> Iterator[Process]:
    """A process that lives, and does nothing."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        yield process.of(child.pid)
        child.communicate()


Join = Callable[..., str]


@pytest.fixture
def join(app: HelpedApp, elsewhere: Process) -> Join:
    """Note an engine of another process, as that process would."""

    def join(
        *providers: str, kind: str = "serve", ago: float = 0.0, of: Process | None = None
    ) -> str:
        name, process = ids.engine_id(), of or elsewhere
        app.ledger.engines.join(name, process, kind, time.time() - ago, providers)
        return name

    return join


@pytest.fixture
def engine(app: HelpedApp) -> Iterator[Engine]:
    """One that only ticks when it is told to, with one of the two providers."""
    engine = app.engine("serve", listen=False)
    engine.context.providers = {"fake": app.providers.get("fake")}
    yield engine
    engine.close()


def queued(runner: vmrunner.Runner, **options: object) -> str:
    """A build that nobody looked at yet."""
    build, _ = runner.enter(vmrunner.api.runner.build_request("say a", options))  # type: ignore[arg-type]
    return build.id


# --- at which providers --------------------------------------------------------------------------


def test_an_engine_serves_the_providers_that_it_has(app: HelpedApp, join: Join) -> None:
    assert not app.served()
    join("fake")
    assert app.served()
    assert app.served("fake", staying=True)
    assert not app.served("other")
    assert not app.served("fake", "other")
    join("other", kind="run")
    assert app.served("fake", "other")
    assert not app.served("fake", "other", staying=True)
    app.background.ensure("fake")
    assert app.background.count == 0
    app.background.ensure("other", "fake")
    assert app.background.count == 1
    app.background.ensure("one that we could not start either")
    assert app.background.count == 1


def test_no_build_waits_for_an_engine_without_its_provider(app: HelpedApp, join: Join) -> None:
    join("other")
    with vmrunner.Runner(app=app) as runner:
        assert runner.run("say a", provider="fake", wait_timeout="60s").exit_code == 0


def test_an_engine_retires_from_builds_that_it_cannot_run(app: HelpedApp, engine: Engine) -> None:
    runner = vmrunner.Runner(app=app)
    queued(runner, provider="other")
    engine.tick()
    assert engine.idle
    assert engine.retire()
    build = queued(runner, provider="fake")
    assert not engine.retire()
    wait_until(lambda: engine.tick() and runner.get(build).finished)
    runner.app.ledger.builds.request_cancel(
        queued(runner, provider="other"), vmrunner.Reason.USER, time.time()
    )
    assert not engine.retire(), "a wish to end is for anybody"


def test_a_build_without_any_provider_keeps_its_queue_timeout(
    app: HelpedApp, engine: Engine
) -> None:
    runner = vmrunner.Runner(app=app)
    build = queued(runner, provider="other", queue_timeout=0)
    waits = queued(runner, provider="other")
    engine.tick()
    assert runner.get(build).reason is vmrunner.Reason.QUEUE_TIMEOUT
    assert engine.waiting == {waits: "the engine that is here has no provider 'other'"}


def test_a_long_queue_of_others_hides_nothing_of_ours(
    app: HelpedApp, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.engine.engine.QUEUE", 3)
    runner = vmrunner.Runner(app=app)
    for _ in range(4):
        queued(runner, provider="other", priority=9)
    ours = queued(runner, provider="fake")
    wait_until(lambda: engine.tick() and runner.get(ours).finished)


def test_where_nobody_can_help_it_is_said(app: HelpedApp) -> None:
    with app.host(None) as helper:
        helper.ensure("nowhere")
    assert app.background.count == 0
    assert helper.waiting("b") == "no engine that lives has provider 'nowhere', nor have we"


# --- one of our own ------------------------------------------------------------------------------


def test_a_tick_that_fails_ends_no_engine(
    app: HelpedApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vmrunner.engine.engine.BUSY_TICK", 0.01)
    troubles = iter([KeyError("a row"), RuntimeError("a bug"), LedgerError("away")] * 3)
    tick = Engine.tick

    def broken(engine: Engine) -> float:
        for error in troubles:
            raise error
        return tick(engine)

    monkeypatch.setattr(Engine, "tick", broken)
    with vmrunner.Runner(app=app) as runner:
        assert runner.run("say a", wait_timeout="60s").exit_code == 0
    records = [record for record in caplog.records if record.message == "a tick failed"]
    assert len(records) == 6
    assert all(record.exc_info for record in records)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_whose_thread_died_is_replaced(
    app: HelpedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worse(BaseException):
        """What nothing catches."""

    died: list[Engine] = []
    tick = Engine.tick

    def deadly(engine: Engine) -> float:
        if not died:
            died.append(engine)
            raise Worse
        assert engine is not died[0]
        return tick(engine)

    monkeypatch.setattr(Engine, "tick", deadly)
    with vmrunner.Runner(app=app) as runner:
        assert runner.run("say a", wait_timeout="60s").exit_code == 0
        assert len(runner.app.ledger.engines.list()) == 1


def test_a_forked_child_leaves_its_parents_engine_alone(app: HelpedApp) -> None:
    with app.host("api") as host:
        host.ensure("fake")
        wait_until(lambda: app.ledger.engines.list())
        (mine,) = app.ledger.engines.list()
        sockets = sorted(app.paths.wake.iterdir())
        pid = os.fork()
        if pid == 0:
            try:
                with host:  # and leaves it
                    host.ensure("fake")
                    host.ensure("fake")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert mine.id in [member.id for member in app.ledger.engines.list()]
        assert set(sockets) <= set(app.paths.wake.iterdir())


def test_a_provider_that_would_not_open_is_retried_and_told(
    app: HelpedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ["other"]

    class Broken(HelpedApp):
        def open_provider(self, name: str) -> FakeProvider:
            if name in broken:
                raise vmrunner.ConfigError(f"providers.{name}: broken", hint="mend it")
            return super().open_provider(name)

    app = Broken(app.settings)
    monkeypatch.setattr("vmrunner.engine.engine.HEARTBEAT", 0.0)
    monkeypatch.setattr(engine_host, "CHECK", 0.0)
    with app.host("api") as helper:
        helper.ensure("fake")
        with pytest.raises(vmrunner.ConfigError, match="mend it"):
            helper.ensure("other")
        broken.clear()
        helper.ensure("other")
        list_ = app.ledger.engines.list
        wait_until(lambda: [m.providers for m in list_()] == [{"fake", "other"}])
    app.close()


# --- one in the background -----------------------------------------------------------------------


def test_what_submit_queued_has_an_engine_that_stays(app: HelpedApp, join: Join) -> None:
    join("fake", kind="run")
    runner = vmrunner.Runner(app=app)
    build = runner.submit("sleep 60")
    wait_until(lambda: build.refresh().state == "running", what="an engine of our own")
    runner.close()
    assert app.background.count == 1, "the other one ends with a build of its own"


def test_submit_looks_for_an_engine_each_time(app: HelpedApp, join: Join) -> None:
    engine_id = join("fake")
    with vmrunner.Runner(app=app) as runner:
        builds = [runner.submit("say a")]
        app.ledger.engines.leave(engine_id)  # it retires, and finds nothing of ours yet
        builds.append(runner.submit("say b"))
        wait_until(lambda: all(build.refresh().finished for build in builds))
    with vmrunner.Runner(app=app) as runner:
        join("fake")
        runner.submit("sleep 60")
    assert app.background.count == 0, "one that stays has it"


def test_a_failing_background_engine_is_not_restarted_for_ever(
    app: HelpedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counted(background.BackgroundEngines):
        count = 0

        def spawn(self) -> None:
            self.count += 1
            super().spawn()

    class Dying(ScriptedApp):
        program: ClassVar = (sys.executable, "-c", "raise SystemExit('no such thing')")
        background_engines: ClassVar = Counted

    monkeypatch.setattr(engine_host, "CHECK", 0.01)
    dying = Dying(app.settings)
    end = time.monotonic() + 60
    message = ""
    with dying.host(None) as helper:
        while not message:
            assert time.monotonic() < end
            threading.Event().wait(0.01)
            try:
                helper.ensure("fake")
            except VmrunnerError as error:
                message = str(error)
    assert "5 times by now (see the end of " in message
    assert isinstance(dying.background, Counted)
    assert dying.background.count == engine_host.ENGINE_TRIES
    assert "no such thing" in dying.paths.engine_log.read_text()
    dying.close()


def test_each_background_engine_reads_its_own_settings(app: HelpedApp) -> None:
    """What two configurations of one ledger start at once."""
    data = app.paths.data
    data.mkdir(parents=True)
    first, second = (background._settings(data, f"default_provider = '{x}'\n") for x in ("a", "b"))
    assert first != second
    assert first.read_text() == "default_provider = 'a'\n"
    assert first.stat().st_mode & 0o777 == 0o600
    before = first.stat().st_ino
    with first.open() as reading:
        assert background._settings(data, "default_provider = 'a'\n") == first
        assert reading.read() == "default_provider = 'a'\n", "never cut while it is read"
    assert first.stat().st_ino != before
    assert sorted(data.glob("*")) == sorted([first, second])


# --- rows that nobody is behind ------------------------------------------------------------------


def test_an_announced_engine_counts_until_it_speaks_for_itself(app: HelpedApp, join: Join) -> None:
    join("fake", "other", kind=STARTING)
    assert app.served("fake", "other", staying=True)
    itself = join("fake", kind="background")
    assert not app.served("other"), "it could not open it"
    app.ledger.engines.leave(itself)
    assert not app.served(), "its process still lives, and serves nobody"


def test_an_announced_engine_that_never_comes_serves_nobody(app: HelpedApp, join: Join) -> None:
    join("fake", kind=STARTING, ago=MEMBER_LEASE)
    assert not app.served()


def test_a_process_that_lives_and_is_silent_serves_nobody(app: HelpedApp, join: Join) -> None:
    """Its engine was closed when the ledger could not be told so."""
    name = join("fake", ago=2 * MEMBER_LEASE)
    assert not app.served()
    app.ledger.engines.beat(name, time.time())
    assert app.served()


def test_rows_of_the_dead_are_taken_away_after_a_day(
    app: HelpedApp, join: Join, elsewhere: Process, engine: Engine
) -> None:
    dead = replace(elsewhere, started=1)
    fresh, _ = join("fake", of=dead, ago=3600), join("fake", of=dead, ago=100_000)
    silent = join("fake", ago=100_000)
    engine.tick()
    assert {m.id for m in app.ledger.engines.list()} == {fresh, silent, engine.id}


def test_an_engine_closed_while_it_joins_leaves_no_row(app: HelpedApp, engine: Engine) -> None:
    tick = engine.tick
    closed = threading.Event()

    def slow() -> float:
        engine.close()
        closed.set()
        return tick()

    engine.tick = slow  # type: ignore[method-assign]
    engine.run(closed.is_set)
    assert app.ledger.engines.list() == []


def test_a_build_left_to_another_runner_keeps_its_vm(app: HelpedApp, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with vmrunner.Runner(app=HelpedApp(app.settings)) as theirs:
        with vmrunner.Runner(app=app) as ours:
            ours.submit("exit 0", provider="fake").wait(timeout="60s")
            build, _ = theirs.enter(
                vmrunner.api.runner.build_request(f"until {go}", {"provider": "fake"})
            )
            wait_until(lambda: theirs.get(build.id).state.value == "running")
            driver = theirs.app.ledger.builds.get(build.id)
            assert driver.owner == ours._host.own
        row = theirs.app.ledger.instances.get(driver.instance or "")
        fake = theirs.app.providers.get("fake")
        assert isinstance(fake, FakeProvider)
        assert row.ref in fake.cloud.machines, "it would be taken for lost"
        go.touch()  # and the other's engine takes over
        ended = theirs.wait(build.id, end=time.monotonic() + 60, check=False)
        wait_until(lambda: not fake.cloud.machines[row.ref].alive)
    assert (ended.result, ended.instance) == (vmrunner.Result.SUCCESS, row.id)
