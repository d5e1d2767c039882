"""Trust in a project's file. A checkout is unread code: its configuration is obeyed
only where no other user could have written it, and what sends credentials or data somewhere, or
widens rights, only after its user has trusted that very content (`vmrunner config trust`)."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import platformdirs

from vmrunner.errors import ConfigError, NotFound
from vmrunner.lib import private_dirs

Key = tuple[str, ...]

_LINKS: Final = 40  # as many as the kernel follows
_BY_OTHERS: Final = 0o022

#: Tables and keys that decide where data goes, whose machines are ours to end, how long what was
#: kept is kept, what a build may, and what it may cost.
_HELD: Final = (
    ("budgets",),
    ("caches",),
    ("database",),
    ("garm",),
    ("github",),
    ("gitlab",),
    ("store",),
    ("installation",),
    ("limits", "docker"),
    ("limits", "images"),
    ("limits", "network"),
    ("limits", "privileged"),
    ("reaper",),
    ("secret_key",),
    ("notify",),
    ("server",),
)
#: Defaults that protect: one that the user's own configuration sets is not undone.
_PROTECTING: Final = frozenset({("defaults", "network"), ("defaults", "container_runtime")})


class TrustProblem(NamedTuple):
    """The reason why a file may be another user's work, and what mends it."""

    why: str
    fix: str


class TrustedFile(NamedTuple):
    """One content that is trusted, and the file that it is trusted in."""

    sha256: str
    path: str

    @property
    def state(self) -> str:
        """True if the file still has the content that was trusted."""
        try:
            return "trusted" if digest(Path(self.path).read_bytes()) == self.sha256 else "changed"
        except OSError:
            return "gone"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- which keys ----------------------------------------------------------------------------------


def held(
    values: Mapping[str, Any], own: Mapping[Key, object], merged: Mapping[str, Any]
) -> set[Key]:
    """The keys of a project's table that need trust. `own` has the keys and values of the user's
    own configuration; `merged` is the table that all sources give together."""
    return {key for key in _leaves(values) if _is_held(key, own, merged)}


def _is_held(key: Key, own: Mapping[Key, object], merged: Mapping[str, Any]) -> bool:
    if key[0] == "providers" and len(key) > 2:
        kind = merged["providers"][key[1]].get("kind")
        if key[2] == "kind" and own.get(key, kind) != kind:
            return True  # the user's VMs of that name would be out of sight
        from vmrunner.providers import registry

        driver = registry.find(kind)
        return driver is None or key[2] not in registry.settings_of(driver).harmless
    protects = {prefix[:2] for prefix in own} & _PROTECTING  # a table is its keys
    return key[:2] in protects or any(key[: len(at)] == at for at in _HELD)


def _leaves(table: Mapping[str, Any], at: Key = ()) -> Iterator[Key]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*at, name))
        else:
            yield (*at, name)


# --- whose file ----------------------------------------------------------------------------------


def doubt(file: Path) -> TrustProblem | None:
    """The reason why this path's content may be another user's; None when only we and root can
    have written it. Every directory and link on the way counts."""
    parts = [*reversed(file.absolute().parts[1:])]
    here, links = Path(file.anchor or "/"), 0
    while True:
        status = here.lstat()
        if found := _doubt(here, status):
            return found
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _LINKS:
                return TrustProblem(f"{here} is one of too many links", "name the file itself")
            parts += reversed(here.readlink().parts)
            here = here.parent
        if not parts:
            return None
        here = Path(os.path.normpath(here / parts.pop()))


def _doubt(path: Path, status: os.stat_result) -> TrustProblem | None:
    me = os.geteuid()
    if status.st_uid not in (0, me):
        return TrustProblem(f"{path} belongs to {_name(status.st_uid)}", f"chown it to {_name(me)}")
    directory, link = stat.S_ISDIR(status.st_mode), stat.S_ISLNK(status.st_mode)
    others = status.st_mode & _BY_OTHERS & ~(0o020 if _alone(status.st_gid, me) else 0)
    # In a sticky directory, as /tmp is, others replace no file of ours, and the rest is not ours.
    if link or not others or (directory and status.st_mode & stat.S_ISVTX):
        return None
    mode = stat.S_IMODE(status.st_mode)
    return TrustProblem(f"others may write {path} (mode {mode:04o})", f"chmod go-w {path}")


def _alone(group: int, user: int) -> bool:
    """True if it is the group that many systems give to each user, with no other user in it."""
    try:
        owner, names = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    return names.gr_name == owner.pw_name and set(names.gr_mem) <= {owner.pw_name}


def _name(user: int) -> str:
    try:
        return f"{pwd.getpwuid(user).pw_name} (uid {user})"
    except KeyError:
        return f"uid {user}"


# --- what was trusted ----------------------------------------------------------------------------


def store() -> Path:
    """Return the file in which trust is written down: beside the user's own configuration, readable
    by him alone."""
    return platformdirs.user_config_path("vmrunner") / "trusted.json"


def entries() -> list[TrustedFile]:
    """All that was trusted. Raises ConfigError when that cannot be read."""
    try:
        return [
            TrustedFile(str(entry["sha256"]), str(entry["path"]))
            for entry in json.loads(store().read_bytes())
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{store()}: cannot be read: {error}", hint="remove it, and trust anew"
        ) from None


def trusted(file: Path, content: bytes) -> bool:
    """True if the user trusted this content in this place. Relative paths mean something else in
    another."""
    return TrustedFile(digest(content), str(file.resolve())) in entries()


def add(file: Path) -> TrustedFile:
    """Trust what the file holds now. Raises ConfigError for one that others may change."""
    if found := doubt(file):
        raise ConfigError(f"{file}: cannot be trusted: {found.why}", hint=found.fix)
    entry = TrustedFile(digest(file.read_bytes()), str(file.resolve()))
    with _writing() as trusted:
        trusted[:] = [*(other for other in trusted if other != entry), entry]
    return entry


def revoke(file: Path) -> None:
    """Trust no content of this file any more. Raises NotFound when none was trusted."""
    path = str(file.resolve())
    with _writing() as trusted:
        kept = [entry for entry in trusted if entry.path != path]
        if len(kept) == len(trusted):
            raise NotFound(
                f"{path} is not trusted", hint="vmrunner config trust --list shows what is"
            )
        trusted[:] = kept


@contextmanager
def _writing() -> Iterator[list[TrustedFile]]:
    """All that is trusted, to be changed: it is written whole, and by one process at a time."""
    from vmrunner.lib import local_files

    with local_files.alone(private_dirs.make(store().parent)):
        trusted = entries()
        yield trusted
        local_files.replace(store(), json.dumps([entry._asdict() for entry in trusted], indent=1))
