"""Sweep of what lives here, and its end. A VM is seen by its directory, by its processes, or by
both: a lost directory hides no process, a corrupt file hides no directory."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from vmrunner.lib import process
from vmrunner.model import (
    TAG,
    Address,
    Fate,
    Key,
    Kind,
    Outcome,
    Power,
    Process,
    Ref,
    Resource,
    Role,
    Scope,
    Seen,
    Start,
)
from vmrunner.providers.qemu import processes, state_dir
from vmrunner.providers.qemu.state_dir import InstanceDir, StateDir

_KEEPER_TIMEOUT: Final = 5.0  # seconds after which a keeper that was asked to end is killed
_LOWERED: Final = 10.0  # seconds for a keeper to take note of an earlier end
_FORCED: Final = 3.0  # seconds to wait for the kernel after SIGKILL


def scope(state: StateDir) -> Scope:
    """Return the scope: this host, by its machine id and the directory's own, which machines that
    were cloned do not share, and the state directory, by its real path."""
    host = "-".join(filter(None, (processes.machine_id(state.path), state.host)))
    return Scope("qemu", host, str(state.path))


def mark(state: StateDir) -> str:
    """Return the argument by which processes of this state directory's VMs are known; the name
    follows it."""
    return f"{processes.MARK}{hashlib.sha256(str(state.path).encode()).hexdigest()[:12]}="


# --- looking -------------------------------------------------------------------------------------


def look(state: StateDir, mark: str, scope: Scope, ids: Sequence[Key]) -> dict[Key, Seen]:
    """Tombstones are shown as dead; what has neither directory, process nor tombstone is not
    shown."""
    by_instance = {_id(instance_dir): instance_dir for instance_dir in state.instance_dirs()}
    found: dict[Key, Seen] = {}
    missing: list[Key] = []
    for key in ids:
        if key.scope != scope:
            continue
        instance_dir = by_instance.get(key.instance)
        if instance_dir is not None and instance_dir.held:
            found[key] = _seen(_ref(key), instance_dir)
        else:
            missing.append(key)
    if not missing:  # the common case reads neither the journal nor /proc
        return found
    lost = {_instance(name) for _, name in processes.marked(mark)}
    tombstones = state.tombstones()
    for key in missing:
        if key.instance in tombstones:
            found[key] = _dead(_ref(key), tombstones[key.instance])
        elif key.instance in by_instance:
            found[key] = _seen(_ref(key), by_instance[key.instance])
        elif key.instance in lost:
            detail = "its directory is gone"
            found[key] = Seen(ref=_ref(key), power=Power.RUNNING, detail=detail)
    return found


def _ref(key: Key) -> Ref:
    return Ref(key.scope, Kind.INSTANCE, key.instance)


def _seen(ref: Ref, instance_dir: InstanceDir) -> Seen:
    power, detail = _power(instance_dir)
    return Seen(
        ref=ref,
        power=power,
        address=Address(str(instance_dir.path / state_dir.SSH)) if power is Power.RUNNING else None,
        created_at=_number((instance_dir.read(state_dir.PLAN) or {}).get("created")),
        detail=detail,
        start=_start(instance_dir),
    )


def _start(instance_dir: InstanceDir) -> Start | None:
    try:
        return Start((instance_dir.path / state_dir.STARTED).read_text())
    except (OSError, ValueError):
        return None


def _dead(ref: Ref, tombstone: Mapping[str, Any]) -> Seen:
    return Seen(
        ref=ref,
        power=Power.DEAD,
        created_at=_number(tombstone.get("created")),
        detail=str(tombstone.get("detail", "")),
        self_ended=tombstone.get("self_ended") is True,
    )


def _power(instance_dir: InstanceDir) -> tuple[Power, str]:
    """Return the power state that the lock and the files say, and why. Without a keeper no VM runs:
    it dies with its keeper."""
    kept = (instance_dir.path / state_dir.KEEPER).exists()
    if instance_dir.held:
        if (instance_dir.path / state_dir.END).exists():
            return Power.STOPPING, "its keeper was asked to end it"
        return (Power.RUNNING, "") if kept else (Power.PENDING, "its keeper starts")
    if kept:
        return Power.STOPPED, "its keeper was killed"
    return Power.PENDING, "no keeper yet"


def resources(state: StateDir, mark: str, scope: Scope) -> tuple[Resource, ...]:
    """Resources of each directory, and of each process whose directory is missing, of any maker."""
    found = {
        _id(instance_dir): _resource(scope, instance_dir) for instance_dir in state.instance_dirs()
    }
    for _, name in processes.marked(mark):
        instance = _instance(name)
        # With a tombstone its directory is gone because it ended just now: its keeper goes too.
        if instance not in found and state.tombstone(instance) is None:
            tags = _tags(state_dir.parse(name), {})
            ref = Ref(scope, Kind.INSTANCE, instance)
            near = "" if tags else "the processes of our VMs"
            found[instance] = Resource(ref=ref, power=Power.RUNNING, tags=tags, near=near)
    return tuple(found.values())


def _resource(scope: Scope, instance_dir: InstanceDir) -> Resource:
    plan = instance_dir.read(state_dir.PLAN) or {}
    tags = _tags(instance_dir.name, instance_dir.read(state_dir.TAGS) or {})
    if tags and _abandoned(plan):
        expires = f"{TAG}expires-at"  # not past its own, or it would never be late
        tags[expires] = str(min(int(tags[expires]), int(time.time())))
    return Resource(
        ref=Ref(scope, Kind.INSTANCE, _id(instance_dir)),
        power=_power(instance_dir)[0],
        created_at=_number(plan.get("created")),
        tags=tags,
        near="" if instance_dir.name else "the directory of our VMs",
    )


def _abandoned(plan: Mapping[str, Any]) -> bool:
    """True if the maker of an image with this VM has ended: the VM is of no use, so its time is
    over. No row tells of it."""
    try:
        maker = Process(**plan["maker"])
    except (KeyError, TypeError):  # a build's
        return False
    return process.alive(maker) is False


def _tags(name: state_dir.DirName | None, kept: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags. What the name says overrides the file; a VM whose file is lost is taken for
    a build's."""
    if name is None:
        return {}
    tags = {str(key): value for key, value in kept.items() if isinstance(value, str)}
    tags.setdefault(f"{TAG}role", Role.BUILD.value)
    tags[f"{TAG}installation"] = name.installation
    tags[f"{TAG}instance"] = name.instance
    tags[f"{TAG}expires-at"] = str(name.deadline)
    return tags


def _id(instance_dir: InstanceDir) -> str:
    return _instance(instance_dir.path.name)


def _instance(text: str) -> str:
    name = state_dir.parse(text)
    return name.instance if name else text


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


# --- an earlier end --------------------------------------------------------------------------


def lower(instance_dir: InstanceDir, due: float) -> None:
    """Tell its keeper an earlier end; it has taken note when this returns. Raises TimeoutError."""
    former = instance_dir.time(state_dir.DUE)
    due = due if former is None else min(due, former)
    until = time.monotonic() + _LOWERED
    if due != former:
        instance_dir.write_time(state_dir.DUE, due)
    while instance_dir.time(state_dir.HELD) != due:
        keeper = processes.parse((instance_dir.read(state_dir.KEEPER) or {}).get("keeper"))
        if keeper is not None:
            processes.send(keeper, signal.SIGUSR1)
        if time.monotonic() > until:
            raise TimeoutError("its keeper does not take an earlier end")
        time.sleep(0.001)


# --- ending --------------------------------------------------------------------------------------


def end(state: StateDir, mark: str, instance: str, *, now: float, force: bool) -> Outcome:
    """Ask the keeper; kill it when it does not listen or `force`; tidy up after a dead one."""
    instance_dir = state.instance_dir(instance)
    if instance_dir is None:
        return _kill_lost(mark, instance)
    if instance_dir.held:
        asked_at = _asked(instance_dir)
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
            (instance_dir.path / state_dir.END).touch()
        keeper = processes.parse((instance_dir.read(state_dir.KEEPER) or {}).get("keeper"))
        force = force or (asked_at is not None and now - asked_at > _KEEPER_TIMEOUT)
        if keeper is not None:
            processes.send(keeper, signal.SIGKILL if force else signal.SIGTERM)
        if not force or not _wait_released(instance_dir):
            return Outcome(fate=Fate.ACCEPTED)
    _kill_lost(mark, instance)
    _tidy_up(state, instance_dir, now)
    return Outcome(fate=Fate.ACCEPTED)


def _asked(instance_dir: InstanceDir) -> float | None:
    """Time when the keeper was first asked to end, epoch seconds; None: never."""
    try:
        return (instance_dir.path / state_dir.END).stat().st_ctime
    except OSError:
        return None


def _wait_released(instance_dir: InstanceDir) -> bool:
    until = time.monotonic() + _FORCED
    while instance_dir.held:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _kill_lost(mark: str, instance: str) -> Outcome:
    """SIGKILL every process that carries the instance's name."""
    killed = False
    for target, name in processes.marked(mark):
        if _instance(name) == instance:
            killed = processes.send(target, signal.SIGKILL) or killed
    return Outcome(fate=Fate.ACCEPTED if killed else Fate.MISSING)


def _tidy_up(state: StateDir, instance_dir: InstanceDir, now: float) -> None:
    """Tidy up a directory that has no keeper, under its lock, so that none starts meanwhile."""
    death = {"cause": "deleted", "detail": "deleted", "ended": now}
    try:
        with (instance_dir.path / state_dir.LOCK).open("ab") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            state.record_death(instance_dir, death)
    except FileNotFoundError:
        # No lock file: not one of ours, or half removed already.
        state.record_death(instance_dir, death)
    except BlockingIOError:
        (instance_dir.path / state_dir.END).touch()
