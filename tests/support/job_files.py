"""A job file as a build takes it."""

from __future__ import annotations

from pathlib import Path

from vmrunner.config import jobfile
from vmrunner.config.jobfile import SelectedJob
from vmrunner.config.placed_faults import together


def chosen(text: bytes, job: str | None = None) -> SelectedJob:
    """Choose from such a `vmrunner.yml` in this directory. Raises all that is wrong in it."""
    path = Path(jobfile.NAME)
    path.write_bytes(text)
    found = jobfile.choose(path, job)
    if found.faults:
        raise together(found.faults)
    return found
