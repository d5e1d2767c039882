"""Every exception that vmrunner raises on purpose.

    VmrunnerError
    ├── ConfigError            a field, a value and the fix; nothing was started
    ├── NotFound               no such build, instance, artifact
    ├── NotFinished            a wait's own timeout ran out first (a TimeoutError too)
    ├── Conflict               it exists already, with other parameters, or another owner holds it
    ├── SandboxOver            a sandbox has ended, or is not ready
    ├── NotAllowed             the token does not allow it
    │   ├── QuotaUsedUp        it allows no more at once
    │   └── NoValidToken       there is no such token, or it has ended
    ├── NoRoom                 the server's disk is too full for an upload
    ├── ImageError             an image could not be built; nothing half-built is ever used
    ├── StoreError             the store is out of reach or refused: try again later
    ├── LedgerError            the database failed: a write may or may not have happened
    │   └── ServerUnreachable  the same of a server: no answer, or none that can be read
    ├── Unreadable             one row of the ledger cannot be understood; no other is concerned
    ├── Fenced                 our epoch is stale: another engine owns it; drop all, do nothing
    ├── ProviderError          a cloud or host said no, or did not answer
    │   ├── Refused            nothing was born, nothing happened
    │   │   ├── NoCapacity         → try the next offer
    │   │   ├── QuotaExceeded      → try the next offer; tell the user
    │   │   ├── Throttled          → wait, the same again
    │   │   ├── CredentialsRefused → stop launching, never stop reaping
    │   │   └── BadOrder           → config or image is wrong: stop, tell the user
    │   └── Uncertain          it may have happened: timeout, 5xx, a lost answer
    └── BuildError             a build that did not end in success; has `.build`
        ├── BuildFailed        the build's own exit code
        ├── BuildTimeout
        ├── BuildCancelled
        └── BuildLost          vmrunner or the cloud lost it: no VM, connection or capacity

`hint` is one line that says how to fix it.
"""

from __future__ import annotations

from collections.abc import Sequence


class VmrunnerError(Exception):
    """Root of all errors that vmrunner raises on purpose. `hint`: one line with the fix, or ""."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class ConfigError(VmrunnerError):
    """A value that cannot be used. The message names the field and the value, `hint` the fix.
    `more`: the other faults that were found. `line`: line number in the file that the message
    names, or 0."""

    def __init__(
        self, message: str, *, hint: str = "", more: Sequence[ConfigError] = (), line: int = 0
    ) -> None:
        super().__init__(message, hint=hint)
        self.more = tuple(more)
        self.line = line

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *map(str, self.more)])


class NotFound(VmrunnerError):
    """An id or name that does not exist, or that the caller may not see."""


class NotUploaded(NotFound):
    """Artifacts are on the host that brought them, and not in the store yet."""


class NotFinished(VmrunnerError, TimeoutError):
    """A wait whose own timeout ran out before the build ended. The build goes on."""


class Conflict(VmrunnerError):
    """A request that the state does not allow, or that differs from what exists already."""


class SandboxOver(VmrunnerError):
    """A sandbox that has ended or lost its VM, so that nothing can run in it."""


class NotAllowed(VmrunnerError):
    """A request that the caller's token does not allow."""


class QuotaUsedUp(NotAllowed):
    """A request beyond the number that the caller's token allows at once."""


class NoValidToken(NotAllowed):
    """A request without a token, or with one that is wrong, revoked or expired."""


class OverBudget(VmrunnerError):
    """A budget has no money for this VM; nothing was written."""


class NoRoom(VmrunnerError):
    """The disk of the server is too full for an upload."""


class ImageError(VmrunnerError):
    """A stage of an image build failed. The message ends with the last lines of its output."""


class LedgerError(VmrunnerError):
    """A failed or unreachable database of the ledger. A write may or may not have happened."""


class ServerUnreachable(LedgerError):
    """A server without a usable answer. It may have carried out the request."""


class StoreError(VmrunnerError):
    """The store failed, is out of reach, or gave other bytes than were put there."""


class DamagedObject(StoreError):
    """An object of the store that has other bytes than were put into it."""


class Unreadable(VmrunnerError):
    """A row of the ledger that cannot be understood: another version's, or damaged. It concerns
    nothing but what it is about."""


class Fenced(VmrunnerError):
    """A compare-and-set found another epoch: another engine owns the row now."""


class ProviderError(VmrunnerError):
    """A provider refused or failed. Its subclasses say whether anything was created."""


class Refused(ProviderError):
    """The provider said no: nothing was created and nothing has changed."""


class NoCapacity(Refused):
    """This offer cannot be had now; the next one may."""


class QuotaExceeded(Refused):
    """The account's or host's limit is reached; waiting may help."""


class Throttled(Refused):
    """Too many calls; the same call `wait` seconds later will do. `instance`: the only one that it
    concerns; "": any call. `wait`: 0 where it is unknown."""

    def __init__(
        self, message: str, *, hint: str = "", instance: str = "", wait: float = 0.0
    ) -> None:
        super().__init__(message, hint=hint)
        self.instance = instance
        self.wait = wait


class CredentialsRefused(Refused):
    """Our identity is refused. Launching stops, reaping does not."""


class BadOrder(Refused):
    """The order can never be accepted: an image, network or parameter is wrong."""


class Uncertain(ProviderError):
    """The call may or may not have taken effect: only a look at the cloud can tell."""
