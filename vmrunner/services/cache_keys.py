"""Keys of caches, from `{hash:GLOB}` to what the files of a source make of it.

The process that has the source does this: over HTTP the client, so that a server opens no path.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from vmrunner.config import cache_checks
from vmrunner.errors import ConfigError
from vmrunner.lib.archive.contents import contents
from vmrunner.lib.globs import Globs
from vmrunner.model import CacheRule
from vmrunner.services import sources

LETTERS: Final = 32  # of a SHA-256, in hex


def named(rules: Sequence[CacheRule], source: str | None) -> tuple[CacheRule, ...]:
    """Return the rules with keys that say the contents of the source's files. Raises ConfigError
    where a key asks for those and the source is no directory, or has none."""
    return tuple(replace(rule, key=_named(rule.key, source)) for rule in rules)


def _named(key: str, source: str | None) -> str:
    found = list(cache_checks.globs_of(key))
    if not found:
        return key
    if source is None or source.startswith(sources.GIT):
        raise ConfigError(
            f"cache: {key[:80]!r} names files of a source directory, and there is none",
            hint="a source directory, or a key without {hash:…}",
        )
    for glob in found:
        key = key.replace(f"{{hash:{glob}}}", _digest(Path(source), glob))
    return cache_checks.check_key(key)


def _digest(root: Path, glob: str) -> str:
    """A digest of the names and contents of all files that match."""
    total = hashlib.sha256()
    count = 0
    try:
        for name, path in sorted(_matching(root, glob)):
            count += 1
            plain = os.fsencode(name)
            total.update(b"%d %b\0" % (len(plain), plain))
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ConfigError(f"cache: {error.filename} cannot be read: {error.strerror}") from error
    if not count:
        raise ConfigError(
            f"cache: {{hash:{glob}}} matches no file in {root}",
            hint="name a file of the source, such as {hash:**/requirements.txt}",
        )
    return total.hexdigest()[:LETTERS]


def _matching(root: Path, glob: str) -> Iterator[tuple[str, Path]]:
    """Yield regular files of the source; no link is followed."""
    wanted = Globs([glob])
    for relative, info in contents(root):
        if stat.S_ISREG(info.st_mode) and wanted.match(relative, directory=False):
            yield relative, root / relative
