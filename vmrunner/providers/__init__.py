"""The port: what a cloud or host must be able to do, and nothing else.

Nothing here blocks until a VM is ready: `create` and `delete` mean *accepted*, progress is seen
by `look` and `sweep`. Only `lifecycle` and `reaper` draw conclusions from absence.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, cast, runtime_checkable

from vmrunner.errors import ConfigError
from vmrunner.model import Finding, Key, Offer, Order, Outcome, Page, Ref, Scope, Seen, Spec, Traits


@runtime_checkable
class Provider(Protocol):
    """A driver for one cloud or host, configured by name. Every method may be called from any
    thread. Errors are translated at the driver's edge into `errors.ProviderError`s."""

    @property
    def name(self) -> str:
        """The configured name."""

    @property
    def scopes(self) -> frozenset[Scope]:
        """Where it acts, verified: whose account, which host; never from the config alone."""

    @property
    def traits(self) -> Traits:
        """What its guarantee rests on."""

    def now(self) -> float:
        """The provider's clock, epoch seconds: its last answer's date plus monotonic time since."""

    def offers(self, spec: Spec) -> Sequence[Offer]:
        """What may be asked for, best first. Raises `BadOrder` when the spec can never be met."""

    def create(self, order: Order) -> Ref:
        """Ask for one VM. Returns when it is accepted, not booted. The identical order again
        returns the same VM, also from another process. `Refused`: nothing was born.
        `Uncertain`: it may have been; only the identical order again or `look` can tell."""

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        """Many in one call. A key that is missing in the answer is *not visible*, not dead."""

    def sweep(self) -> Iterator[Page]:
        """All that the provider shows in its scopes, whoever made it, page by page, every state
        but the dead. A failed part is a page with `error`; it never raises half way."""

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        """Ask for death, of any kind of resource. Missing is success; accepted is not finished.
        One bad item never blocks another: every ref gets its own outcome."""

    def console(self, ref: Ref) -> str:
        """The last boot output, at most 64 KiB, for the build's log when boot fails."""

    def check(self) -> Sequence[Finding]:
        """Can it be used: the right to delete first, then image, quota, network, clock."""


class Arms(Protocol):
    """A provider whose cloud keeps a deadline that is armed after birth, an effect of its own."""

    def arm(self, ref: Ref, instance: str, deadline: float) -> Ref | None:
        """See to it that the cloud itself ends `ref` some minutes past `deadline`. Returns what
        does, to be deleted once the VM is dead; None: it is not set up for that where this VM is.
        The identical arming again is the same one. Raises `ProviderError`."""


class Seals(Protocol):
    """A provider whose cloud can switch a VM's metadata service off from outside."""

    def seal(self, ref: Ref) -> None:
        """Switch it off for good; accepted when it returns. Again is no error. Raises
        `ProviderError`."""


def arms(provider: Provider) -> Arms | None:
    """The provider, where it arms."""
    return cast("Arms", provider) if provider.traits.arms else None


def seals(provider: Provider) -> Seals | None:
    """The provider, where it seals."""
    return cast("Seals", provider) if provider.traits.seals else None


#: Kinds that ship with vmrunner, each a module `vmrunner.providers.<kind>` with a function `open`.
KINDS: Final = ("qemu", "ec2", "gce", "fake")


def load(kind: str, name: str, **options: Any) -> Provider:
    """The driver of this kind under its configured name; only now is its SDK imported.

    `options` are the driver's own. `ConfigError` when there is no such kind or its SDK is
    missing; the driver raises it for a bad option."""
    if not re.fullmatch(r"[a-z][a-z0-9]*", kind):
        raise ConfigError(f"providers.{name}.kind: {kind!r} is not a kind", hint=_kinds())
    module = f"{__name__}.{kind}"
    try:
        opened = importlib.import_module(module).open(name, **options)
    except ModuleNotFoundError as missing:
        if missing.name == module:
            raise ConfigError(f"providers.{name}.kind: no kind {kind!r}", hint=_kinds()) from None
        extra = {"ec2": "aws", "gce": "gcp"}.get(kind)
        raise ConfigError(
            f"providers.{name}: kind {kind!r} needs the Python package {missing.name!r}",
            hint=f"pip install 'vmrunner[{extra}]'" if extra else "",
        ) from missing
    return cast("Provider", opened)


def defaults(kind: str) -> dict[str, Any]:
    """What a driver of this kind does where its options say nothing; no SDK is imported."""
    if kind == "fake":
        return {}
    options = getattr(
        importlib.import_module(f"{__name__}.{kind}.options"), f"{kind.capitalize()}Options"
    )
    given = {part.name: part.default for part in dataclasses.fields(options)}
    return {
        name: dataclasses.asdict(value) if hasattr(value, "__dataclass_fields__") else value
        for name, value in given.items()
        if value is not None and value is not dataclasses.MISSING
    }


def _kinds() -> str:
    return f"one of: {', '.join(KINDS)}"
