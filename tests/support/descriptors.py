"""Descriptors with large numbers."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

FIRST = 1100  # past select(2)'s 1024


@contextlib.contextmanager
def many_open() -> Iterator[None]:
    """Inside, whatever is opened gets a number that `select` cannot hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FIRST + 100
    raised = wanted > soft != resource.RLIM_INFINITY
    if raised:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    opened: list[int] = []
    try:
        while not opened or opened[-1] < FIRST:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)
        if raised:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
