"""Exit codes (design §9). `run`, `watch`, `logs -f`, `ssh`, `sandbox run|exec|shell` give
the remote code and say 125 for all that is ours; the other commands have small codes of their
own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from vmrunner import errors

if TYPE_CHECKING:
    from vmrunner.model import BuildRecord

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CREDENTIALS: Final = 4
CONFLICT: Final = 5
CAPACITY: Final = 6
PARTLY: Final = 7
UNFINISHED: Final = 8

TIMEOUT: Final = 124
OURS: Final = 125
INTERRUPTED: Final = 130
UNREAD: Final = 141  # as after SIGPIPE
TERMINATED: Final = 143


class ExitNow(Exception):
    """Leave at once, whatever threads still do."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def remote(argv: Sequence[str]) -> bool:
    """True if this command line speaks for a build or a command: its own troubles are 125."""
    own = list(argv[: argv.index("--")]) if "--" in argv else list(argv)
    words = [word for word in own if not word.startswith("-")]
    command = words[0] if words else ""
    if command == "sandbox":
        return words[1:2] in (["run"], ["exec"], ["shell"])
    if command == "logs":
        return any(re.fullmatch(r"-[a-zA-Z]*f[a-zA-Z]*|--follow", word) for word in own)
    return command in ("run", "watch", "ssh", "gitlab")  # to GitLab Runner, 1 is the job's failure


def of_error(error: BaseException) -> int:
    """The code of a command that does not speak for a build."""
    codes: tuple[tuple[type[BaseException], int], ...] = (
        (errors.ConfigError, USAGE),
        (errors.NotFound, NOT_FOUND),
        (errors.CredentialsRefused, CREDENTIALS),
        (errors.NoValidToken, CREDENTIALS),
        (errors.QuotaExceeded, CAPACITY),
        (errors.NoCapacity, CAPACITY),
        (errors.Conflict, CONFLICT),
        (errors.Fenced, CONFLICT),
        (errors.NotFinished, UNFINISHED),
        (KeyboardInterrupt, INTERRUPTED),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), FAILED)


def of_build(build: BuildRecord) -> int:
    """The code of a command that speaks for this build, once it has ended."""
    from vmrunner.model import Result

    if build.result is Result.SUCCESS:
        return OK
    if build.result is Result.FAILURE:
        return build.exit_code or FAILED
    if build.result is Result.TIMEOUT:
        return TIMEOUT
    return TERMINATED if build.result is Result.CANCELLED else OURS
