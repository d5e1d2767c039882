"""Caches: directories that builds leave to later ones."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

MOST_CACHES: Final = 10_000  # of one tenant


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheRule:
    """A directory of the container that is restored before the steps and saved after success.
    `path`: absolute. `key`: names the cache; `{hash:GLOB}` in it stands for a hash of those source
    files. `fallback`: starts of keys, tried in order if no cache has the key; the newest cache
    with such a key is used."""

    key: str
    path: str
    fallback: tuple[str, ...] = ()


class CacheOutcome(StrEnum):
    """Outcome of a cache in one build."""

    RESTORED = "restored"
    MISSED = "missed"  # there is none
    NOT_RESTORED = "not_restored"  # there is one, and it could not be had
    SAVED = "saved"
    NOT_SAVED = "not_saved"


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheScope:
    """The caches that a build may see: those of its tenant in `own`, which it alone writes, and in
    `others`, in this order."""

    tenant: str
    own: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredCache:
    """A row of `caches`, as it was when it was read."""

    id: str
    tenant: str
    scope: str
    key: str
    path: str
    object: str  # its name in the store
    digest: str
    size: int
    build: str  # that saved it
    created_at: float
    used_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundCache:
    """A cache for a build, as a file of this host. `exact`: its key is the one asked for."""

    key: str
    exact: bool
    path: Path
    size: int
