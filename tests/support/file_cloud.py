"""A cloud in a file, shared by processes, and a vmrunner over it: for tests of the program as a
black box. `python -m tests.support.file_cloud ARGS` is its command line; `CLOUD_FILE` names the
file. While there is a file that `HANG` names, who asks for offers waits. `DRAIN` is how long a stop
may take, in seconds, where that is not to be the real time.

A VM is a record. Its clock is the host's plus `skew`, so that a test lets hours pass by writing
one number. What was deleted is kept, with the time, for the test to judge.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.support.scripted_app import ScriptedApp
from vmrunner.cli import main
from vmrunner.config.sources import LoadedSettings
from vmrunner.model import (
    Address,
    Fate,
    Finding,
    Key,
    Kind,
    Offer,
    Order,
    Outcome,
    Page,
    Power,
    Ref,
    Resource,
    Scope,
    Seen,
    Spec,
    tags_of,
)
from vmrunner.runtime import daemon

State = dict[str, Any]


class FileCloud:
    """What exists, by the name of the provider that has it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def change(self, work: Callable[[State], Any]) -> Any:
        """Read, work and write as one, whoever else does, and whoever is killed over it."""
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self._read()
            answer = work(state)
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(state))
            new.replace(self.path)
            return answer

    def _read(self) -> State:
        try:
            state: State = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {"skew": 0.0, "number": 0, "vms": {}}
        return state

    def now(self) -> float:
        skew: float = self._read()["skew"]
        return time.time() + skew

    def advance(self, seconds: float) -> None:
        self.change(lambda state: state.update(skew=state["skew"] + seconds))

    def vms(self) -> dict[str, State]:
        found: dict[str, State] = self._read()["vms"]
        return found

    def alive(self) -> dict[str, State]:
        return {name: vm for name, vm in self.vms().items() if vm["died"] is None}

    def plant(self, provider: str, tags: Mapping[str, str], *, near: str = "") -> str:
        """A VM, with these tags; returns what the cloud calls it."""
        now = self.now()

        def work(state: State) -> str:
            state["number"] += 1
            name = f"i-{state['number']}"
            state["vms"][name] = {
                "provider": provider,
                "tags": dict(tags),
                "created": now,
                "died": None,
                "near": near,
            }
            return name

        planted: str = self.change(work)
        return planted

    def kill(self, name: str) -> bool:
        now = self.now()

        def work(state: State) -> bool:
            vm = state["vms"].get(name)
            if vm is None or vm["died"] is not None:
                return False
            vm["died"] = now
            return True

        killed: bool = self.change(work)
        return killed


class FileProvider:
    """The port over a `FileCloud`."""

    def __init__(self, name: str, cloud: FileCloud) -> None:
        self.name = name
        self.cloud = cloud
        self.scope = Scope("fake", "account", name)

    @property
    def scopes(self) -> frozenset[Scope]:
        return frozenset((self.scope,))

    creates = 8

    def now(self) -> float:
        return self.cloud.now()

    def offers(self, spec: Spec) -> Sequence[Offer]:
        hang = Path(os.environ.get("HANG", "/none"))
        while hang.exists():
            hang.write_text("somebody waits")
            threading.Event().wait(0.05)
        return (Offer(scope=self.scope, machine_type="small", place=self.name, usd_hour=3600.0),)

    def create(self, order: Order) -> Ref:
        for name, vm in self._own().items():
            if vm["tags"].get("vmrunner:instance") == order.instance:
                return self._ref(name)
        return self._ref(self.cloud.plant(self.name, tags_of(order)))

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        own = self._own()
        by_tag = {vm["tags"].get("vmrunner:instance"): name for name, vm in own.items()}
        found = {}
        for key in ids:
            name = key.ref or by_tag.get(key.instance)
            if key.scope == self.scope and name in own:
                dead = own[name]["died"] is not None
                found[key] = Seen(
                    ref=self._ref(name),
                    power=Power.DEAD if dead else Power.RUNNING,
                    address=Address("127.0.0.1"),
                    created_at=own[name]["created"],
                )
        return found

    def sweep(self) -> Iterator[Page]:
        resources = tuple(
            Resource(
                ref=self._ref(name),
                power=Power.RUNNING,
                created_at=vm["created"],
                tags=vm["tags"],
                near=vm["near"],
            )
            for name, vm in self._own().items()
            if vm["died"] is None
        )
        yield Page(scope=self.scope, kind=Kind.INSTANCE, resources=resources, time=self.now())

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        return {
            ref: Outcome(fate=Fate.ACCEPTED if self.cloud.kill(ref.id) else Fate.MISSING)
            for ref in refs
        }

    def console(self, ref: Ref) -> str:
        return ""

    def check(self) -> Sequence[Finding]:
        return ()

    def _own(self) -> dict[str, State]:
        return {n: vm for n, vm in self.cloud.vms().items() if vm["provider"] == self.name}

    def _ref(self, name: str) -> Ref:
        return Ref(self.scope, Kind.INSTANCE, name)


class FileApp(ScriptedApp):
    program: ClassVar = (sys.executable, "-m", "tests.support.file_cloud")

    def open_provider(self, name: str) -> FileProvider:  # type: ignore[override]
        return self.open_kind("fake", name, {})

    def open_kind(self, kind: str, name: str, options: Mapping[str, Any]) -> FileProvider:
        assert self.ledgers.installation  # every driver that tags asks for it
        return FileProvider(name, FileCloud(Path(os.environ["CLOUD_FILE"])))


def join(loaded: LoadedSettings) -> FileApp:
    return FileApp(loaded.settings)


if __name__ == "__main__":
    daemon.DRAIN = float(os.environ.get("DRAIN", daemon.DRAIN))  # type: ignore[misc]
    sys.exit(main(join=join))
