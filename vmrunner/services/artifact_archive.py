"""Artifacts of a build as one tar stream."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from vmrunner.store.build_artifacts import BLOCK, ArtifactEntry, ArtifactFiles, tar_header


def archive(files: ArtifactFiles) -> Iterator[bytes]:
    """Yield a tar of them all: files and links, with modes and times."""
    for entry in files.ls():
        if stat.S_ISLNK(entry.mode):
            yield tar_header(entry)
        elif stat.S_ISREG(entry.mode):
            yield tar_header(entry)
            yield from _exactly(files, entry)
    yield bytes(2 * BLOCK)


def _exactly(files: ArtifactFiles, entry: ArtifactEntry) -> Iterator[bytes]:
    """Yield so many bytes of a file, and zeros to the end of the block."""
    remaining = entry.size
    for data in files.read(entry):
        yield data[:remaining]
        remaining -= min(remaining, len(data))
    yield bytes(remaining + -entry.size % BLOCK)
