"""One way into the queue: check a request, pack its source, queue it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmrunner.config.build_request import BuildRequest
    from vmrunner.images import Progress
    from vmrunner.model import BuildRecord, Process
    from vmrunner.services.protocols import Service

log = logging.getLogger("vmrunner")


def enter(
    service: Service,
    request: BuildRequest,
    *,
    submitter: Process | None = None,
) -> tuple[BuildRecord, bool]:
    """Return the build, and whether it is a new one (not one that had its idempotency key
    already)."""
    # One after the other: what a step gives belongs to the submission that gave it.
    submission = service.submission
    admitted = submission.admit(submission.check(request), warn=_warn)
    packed = submission.pack(admitted, on_image=_log_image)
    if packed.total is not None:
        log.info("source: %s", packed.total)
    return submission.queue(packed, submitter=submitter)


def _warn(text: str) -> None:
    log.warning("%s", text)


def _log_image(progress: Progress) -> None:
    if progress.fraction == 1.0:
        log.info("VM image: %s took %.0f s", progress.stage, progress.seconds)
