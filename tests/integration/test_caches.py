"""Caches of a build, over a real sshd, the supervisor's real program, a ledger and a store."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_sessions import Recorder, Running
from tests.support.ledger_builds import spec
from tests.support.session_world import World
from tests.support.sshd import wait_for
from vmrunner.ledger import Ledger
from vmrunner.model import CacheRule, Result
from vmrunner.session import End
from vmrunner.session import caches as module
from vmrunner.store import open_store
from vmrunner.store.cache_transfer import CachePolicy, CacheTransfer
from vmrunner.store.object_gc import ObjectGc
from vmrunner.store.uploader import Uploader

pytestmark = pytest.mark.timeout(120)

NO_WALL = "from vmrunner.guest import caches; caches.enter = lambda *_: None"
OLDER = f"{NO_WALL}; del caches.COMMANDS['put_cache']; supervisor.__doc__ = '--epoch'"


class Shelf:
    """A host with a ledger, a store, and builds that succeed, or do not, one after the other."""

    def __init__(self, world: World, ledger: Ledger, root: Path) -> None:
        self.world, self.ledger, self.root = world, ledger, root
        self.policy = CachePolicy(most=1 << 20, tenant_most=3 << 20)
        self.store_url = f"file://{root / 'store'}"
        self.place = root / "sources"
        self.transfer = CacheTransfer(
            ledger, lambda: open_store(self.store_url), self.place, lambda: self.policy
        )
        self.count = 0
        world.guest.set(NO_WALL)

    @property
    def path(self) -> str:
        """The directory that is kept; in the VM there is no wall between it and us."""
        return str(self.root / "cached")

    def rule(self, key: str = "k", *fallback: str) -> CacheRule:
        return CacheRule(key=key, path=self.path, fallback=fallback)

    def fresh(self) -> None:
        """Another VM."""
        shutil.rmtree(self.path, ignore_errors=True)
        for path in (self.world.guest.directory / "lib", self.world.guest.run):
            shutil.rmtree(path, ignore_errors=True)
        self.world.guest.docker.created.clear()
        self.world.guest.docker.process = None
        self.world.record = Recorder()

    def session(self, script: str, *rules: CacheRule, **options: Any) -> Any:
        labels = options.pop("labels", {})
        tenant = options.pop("tenant", "local")
        self.count += 1
        name = f"b-{self.count}"
        rules = rules or (self.rule(),)
        request = spec(labels=labels, caches=rules)
        row, _ = self.ledger.builds.submit(request, id=name, now=time.time(), tenant=tenant)
        self.build = row
        return self.world.session(
            script,
            caches=rules,
            shelf=self.transfer.of(row),
            build={"id": name, **options.pop("build", {})},
            **options,
        )

    def run(self, script: str, *rules: CacheRule, **options: Any) -> End:
        """One build in a fresh VM, to its end in the ledger, and all uploads."""
        self.fresh()
        end = Running(self.session(script, *rules, **options)).wait()
        self.finish(end)
        self.upload()
        return end

    def finish(self, end: End) -> None:
        self.ledger.builds.finish(
            self.build.id, epoch=0, result=end.result, reason=end.reason, now=time.time(),
            exit_code=end.exit_code, message=end.message,
        )  # fmt: skip

    def upload(self) -> None:
        Uploader(
            self.ledger,
            lambda: open_store(self.store_url),
            sources=self.place,
            artifacts=self.root / "artifacts",
            caches=self.transfer,
        ).run()

    def cache_events(self) -> list[Mapping[str, Any]]:
        """What the session, and later the uploader, told of caches."""
        events = [e.data for e in self.ledger.events.list(self.build.id) if e.kind == "cache"]
        return [data for kind, data in self.world.record.events if kind == "cache"] + events

    def outcomes(self) -> list[str]:
        return [str(data["outcome"]) for data in self.cache_events()]


@pytest.fixture
def shelf(world: World, tmp_path: Path) -> Iterator[Shelf]:
    root = tmp_path / "host"
    root.mkdir()
    ledger = Ledger.open(f"sqlite:///{root}/ledger.db", data_dir=root)
    yield Shelf(world, ledger, root)
    ledger.close()


def fill(text: str) -> str:
    return f"mkdir -p $CACHED && echo {text} >$CACHED/file"


SHOW = "cat $CACHED/file 2>/dev/null || echo nothing"


def test_what_one_build_leaves_the_next_one_has(shelf: Shelf) -> None:
    env = {"CACHED": shelf.path}
    assert shelf.run(fill("first"), env=env).result is Result.SUCCESS
    assert shelf.outcomes() == ["missed", "saved"]
    (kept,) = shelf.ledger.caches.list()
    assert (kept.key, kept.path, kept.build) == ("k", shelf.path, "b-1")
    assert shelf.run(SHOW, env=env).result is Result.SUCCESS
    assert shelf.world.log == b"first\n"
    assert shelf.outcomes() == ["restored"]
    assert shelf.cache_events()[0]["key"] == "k"


def test_a_failed_build_saves_nothing(shelf: Shelf) -> None:
    end = shelf.run(fill("bad") + "; exit 3", env={"CACHED": shelf.path})
    assert end.exit_code == 3
    assert (shelf.outcomes(), shelf.ledger.caches.list()) == (["missed"], [])
    assert not (shelf.world.guest.directory / "lib" / "caches" / "0.out").exists()


@pytest.mark.parametrize("result", [Result.FAILURE, Result.CANCELLED, Result.ERROR])
def test_what_a_session_brought_is_kept_after_success_alone(shelf: Shelf, result: Result) -> None:
    """Whatever the session believed: the ledger's word counts."""
    shelf.fresh()
    end = Running(shelf.session(fill("x"), env={"CACHED": shelf.path})).wait()
    assert list(shelf.place.glob("b-1.0.0.cache"))
    shelf.finish(replace(end, result=result))
    shelf.upload()
    assert (list(shelf.place.glob("b-*")), shelf.ledger.caches.list()) == ([], [])


def test_an_owner_of_before_saves_nothing(shelf: Shelf) -> None:
    shelf.fresh()
    end = Running(shelf.session(fill("x"), env={"CACHED": shelf.path})).wait()
    (shelf.place / "b-1.0.0.cache").rename(shelf.place / "b-1.7.0.cache")
    shelf.finish(end)
    shelf.upload()
    assert (list(shelf.place.glob("b-*")), shelf.ledger.caches.list()) == ([], [])


def test_a_fallback_gives_the_newest_and_the_key_is_saved(shelf: Shelf) -> None:
    env = {"CACHED": shelf.path}
    for key in ("pip-1", "pip-2", "npm-3"):
        shelf.run(fill(key), shelf.rule(key), env=env)
    shelf.run(SHOW, shelf.rule("pip-4", "gem-", "pip-"), env=env)
    assert shelf.world.log == b"pip-2\n"
    assert shelf.outcomes() == ["restored", "saved"]
    assert shelf.cache_events()[0]["key"] == "pip-2"
    assert {cache.key for cache in shelf.ledger.caches.list()} == {
        "pip-1",
        "pip-2",
        "npm-3",
        "pip-4",
    }


def test_a_branch_reads_mains_and_main_never_a_branchs(shelf: Shelf) -> None:
    shelf.policy = replace(shelf.policy, scope=("ref",), fallback=({"ref": "main"},))
    env = {"CACHED": shelf.path}
    main, branch, other = ({"ref": name} for name in ("main", "branch", "other"))
    shelf.run(fill("poison"), labels=branch, env=env)
    assert shelf.outcomes() == ["missed", "saved"]
    for labels in (main, {}):
        shelf.run(SHOW, shelf.rule("k", "k"), labels=labels, env=env)
        assert (shelf.world.log, shelf.outcomes()) == (b"nothing\n", ["missed", "not_saved"])
    shelf.run(fill("good"), labels=main, env=env)
    shelf.run(SHOW, labels=branch, env=env)
    assert shelf.world.log == b"poison\n"  # its own
    shelf.run(SHOW, labels=other, env=env)
    assert (shelf.world.log, shelf.outcomes()) == (b"good\n", ["restored"])


def test_no_tenant_gets_anothers(shelf: Shelf) -> None:
    env = {"CACHED": shelf.path}
    shelf.run(fill("theirs"), tenant='{"team": "a"}', env=env)
    shelf.run(SHOW, shelf.rule("k", "k"), tenant='{"team": "b"}', env=env)
    assert (shelf.world.log, shelf.outcomes()[0]) == (b"nothing\n", "missed")


def test_a_damaged_cache_is_not_restored_and_forgotten(shelf: Shelf) -> None:
    env = {"CACHED": shelf.path}
    shelf.run(fill("good"), env=env)
    (file,) = (path for path in (shelf.root / "store").rglob("*") if path.is_file())
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(b"good", b"evil"))
    assert shelf.run(SHOW + "; " + fill("new"), env=env).result is Result.SUCCESS
    assert shelf.world.log == b"nothing\n"
    assert shelf.outcomes() == ["not_restored", "saved"]
    shelf.run(SHOW, env=env)
    assert shelf.world.log == b"new\n"


def test_a_store_that_is_away_costs_the_cache_alone(shelf: Shelf) -> None:
    env = {"CACHED": shelf.path}
    shelf.run(fill("one"), env=env)
    away, shelf.store_url = shelf.store_url, "file:///proc/nowhere"
    assert shelf.run(SHOW + "; " + fill("two"), env=env).result is Result.SUCCESS
    assert (shelf.world.log, shelf.outcomes()) == (b"nothing\n", ["not_restored", "not_saved"])
    assert "later" in shelf.cache_events()[-1]["message"]
    shelf.store_url = away
    shelf.upload()
    assert shelf.outcomes()[-1] == "saved"
    shelf.run(SHOW, env=env)
    assert shelf.world.log == b"two\n"


def test_two_builds_that_save_one_key_leave_one_whole_cache(shelf: Shelf) -> None:
    env = {"CACHED": shelf.path}
    brought = []
    for text in ("one", "two"):
        shelf.fresh()
        end = Running(shelf.session(fill(text), env=env)).wait()
        brought.append((shelf.build, end))
    for shelf.build, end in brought:
        shelf.finish(end)
    shelf.upload()
    (kept,) = shelf.ledger.caches.list()
    objects = [stored for stored, _ in shelf.ledger.objects.page("")]
    assert len(objects) == 2
    assert [stored.name for stored, used in shelf.ledger.objects.page("") if used] == [kept.object]
    shelf.run(SHOW, env=env)
    assert shelf.world.log == b"two\n"


def test_one_that_is_too_large_costs_no_success(shelf: Shelf) -> None:
    shelf.policy = replace(shelf.policy, most=64 << 10)
    script = "mkdir -p $CACHED && head -c 200000 /dev/zero >$CACHED/file"
    assert shelf.run(script, env={"CACHED": shelf.path}).result is Result.SUCCESS
    assert shelf.outcomes() == ["missed", "not_saved"]
    assert "larger than" in shelf.cache_events()[-1]["message"]


def test_gc_takes_what_no_cache_points_at(shelf: Shelf) -> None:
    env = {"CACHED": shelf.path}
    shelf.run(fill("x"), env=env)
    (kept,) = shelf.ledger.caches.list()
    day, now = 86_400.0, [time.time()]
    store = open_store(shelf.store_url)
    gc = ObjectGc(shelf.ledger, lambda: store, keep=day, shared=False, clock=lambda: now[0])
    now[0] += 3 * day
    assert gc.run().count == 0
    assert shelf.ledger.caches.forget_unused(now[0] - 2 * day) == (1, kept.size)
    gc.run()
    now[0] += 2 * day
    assert gc.run().count == 1
    assert list(store.list("")) == []


def test_no_secret_is_in_what_is_told_of_a_cache(shelf: Shelf) -> None:
    """As in the name of a file that cannot be read."""
    failing = "caches.pack = lambda *_, **__: open('/nowhere/s3cr3t-word')"
    shelf.world.guest.set(f"{NO_WALL}; {failing}")
    shelf.run(fill("x"), env={"CACHED": shelf.path}, secrets={"TOKEN": b"s3cr3t-word"})
    assert shelf.cache_events()[-1]["message"].endswith("'/nowhere/***'")


# --- hostile VMs ---------------------------------------------------------------------------------


def lie(shelf: Shelf, answer: str) -> End:
    """A VM that answers so when its packed cache is asked for."""
    shelf.fresh()
    shelf.world.lie(f'[ $1 = get_cache ] || exec $REAL "$@"\n{answer}')
    session = shelf.session(fill("x"), env={"CACHED": shelf.path})
    return Running(session).wait()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("cat /dev/zero", "sent more than"),
        ("echo short", "less than it had said"),
        ("echo no >&2; exit 1", "does not give it: no"),
    ],
)
def test_a_vm_that_lies_about_its_cache_costs_the_cache(
    shelf: Shelf, answer: str, message: str
) -> None:
    end = lie(shelf, answer)
    assert end.result is Result.SUCCESS
    assert shelf.outcomes() == ["missed", "not_saved"]
    assert message in shelf.cache_events()[-1]["message"]
    assert list(shelf.place.glob("*")) == []


def test_a_vm_that_found_its_key_cannot_replace_it(shelf: Shelf) -> None:
    env = {"CACHED": shelf.path}
    shelf.run(fill("good"), env=env)
    packs = "caches.CacheWork._wanted = lambda self, *, packs: [0]"
    shelf.world.guest.set(f"{NO_WALL}; {packs}")
    assert shelf.run(fill("evil"), env=env).result is Result.SUCCESS
    assert shelf.outcomes() == ["restored"]
    shelf.world.guest.set(NO_WALL)
    shelf.run(SHOW, env=env)
    assert shelf.world.log == b"good\n"


def test_a_vm_that_stalls_is_not_waited_for_long(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE", 1.0)
    monkeypatch.setattr(module, "TICK", 0.2)
    end = lie(shelf, "exec sleep 100")
    assert end.result is Result.SUCCESS
    assert "took too long" in shelf.cache_events()[-1]["message"]


def test_a_connection_lost_while_saving_costs_the_cache(shelf: Shelf) -> None:
    shelf.fresh()
    mark = shelf.root / "asked"
    shelf.world.lie(f'[ $1 = get_cache ] || exec $REAL "$@"\ntouch {mark}; exec sleep 100')
    running = Running(shelf.session(fill("x"), env={"CACHED": shelf.path}))
    wait_for(mark.exists)
    shelf.world.proxy.cut()
    assert running.wait().result is Result.SUCCESS
    assert shelf.outcomes() == ["missed", "not_saved"]


#: The process reports and ends right after somebody looked for its report.
REPORTS_LATE = (
    "from vmrunner.guest.caches import CacheWork as W; usual = W._reports; W._reports = lambda w: "
    "(usual(w), w._child and os.waitid(os.P_PID, w._child, os.WEXITED | os.WNOWAIT))[0]"
)


def test_what_was_packed_at_the_last_moment_is_kept(shelf: Shelf) -> None:
    shelf.world.guest.set(REPORTS_LATE)
    shelf.run(fill("x"), env={"CACHED": shelf.path})
    assert shelf.outcomes() == ["missed", "saved"]


def test_an_image_without_caches_runs_the_build(shelf: Shelf) -> None:
    """One that an older vmrunner made: it knows no such command."""
    env = {"CACHED": shelf.path}
    shelf.run(fill("x"), env=env)
    shelf.world.guest.set(OLDER)
    assert shelf.run(SHOW, env=env).result is Result.SUCCESS
    assert shelf.world.log == b"nothing\n"
    assert "image" in shelf.cache_events()[0]["message"]


def test_a_connection_lost_amid_the_steps_costs_no_cache(shelf: Shelf) -> None:
    """What was sent is not looked for again, and nothing is told twice."""
    env = {"CACHED": shelf.path}
    shelf.run(fill("x"), env=env)
    shelf.fresh()
    go = shelf.root / "go"
    script = f"echo begun; while [ ! -e {go} ]; do sleep 0.1; done; {SHOW}; echo 2 >$CACHED/new"
    running = Running(shelf.session(script, shelf.rule("k-2", "k"), env=env))
    wait_for(lambda: shelf.world.log == b"begun\n")
    shelf.world.proxy.cut()
    wait_for(lambda: "reconnected" in shelf.world.record.kinds())
    go.touch()
    shelf.finish(running.wait())
    shelf.upload()
    assert shelf.world.log == b"begun\nx\n"
    assert shelf.outcomes() == ["restored", "saved"]
