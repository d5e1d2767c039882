"""What the supervisor's last event means. Pure."""

from __future__ import annotations

from vmrunner.model import Reason, Result
from vmrunner.session.job import Verdict
from vmrunner.session.protocol import EndFrame


def verdict_of(ended: EndFrame) -> Verdict:
    """The verdict before artifacts are brought."""
    match ended.reason:
        case Reason.EXIT_CODE:
            result = Result.FAILURE if ended.exit_code else Result.SUCCESS
        case Reason.SIGNAL | Reason.OUT_OF_MEMORY | Reason.DISK_FULL:
            result = Result.FAILURE
        case Reason.STEP_TIMEOUT | Reason.BUILD_TIMEOUT:
            result = Result.TIMEOUT
        case Reason.USER | Reason.OWNER_GONE | Reason.BUDGET:
            result = Result.CANCELLED
        case _:
            result = Result.ERROR
    return Verdict(
        result=result, reason=ended.reason, exit_code=ended.exit_code, message=ended.message
    )


class AttemptOver(Exception):
    """It ended in another way than by the supervisor's last event."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict
