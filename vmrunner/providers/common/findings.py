"""Findings of `doctor`, for every cloud: each check by itself, each finding with its fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from vmrunner.errors import ConfigError, ProviderError
from vmrunner.model import Finding, Level, Page
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.permissions import Right

#: So far off a host's clock is worth a warning, in seconds.
SKEWED = 60.0


def ok(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.OK, message=message)


def warning(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, level=Level.WARNING, message=message, fix=fix)


def bad(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, level=Level.ERROR, message=message, fix=fix)


def of_no_wall(name: str, key: str) -> Finding:
    """Tell that nothing outside a VM holds it to `network: none`. `key`: what would."""
    return warning(
        "network none",
        "only the VM itself holds a build to it: one with docker or privileged is refused, and one "
        "that breaks out of its container has the VM's network",
        f"set providers.{name}.{key} (docs/configuration.md#network-none-in-clouds)",
    )


def of_failure(check: str, error: ProviderError | ConfigError, otherwise: str) -> Finding:
    """A check that could not be made. `otherwise`: the fix where the error has none."""
    return bad(check, str(error.args[0]), error.hint or otherwise)


def of_right(
    check: str, right: Right, *, allow: str, tell: str, unknown: str = "it cannot be told"
) -> Finding:
    """The right to end what is launched. `allow`: how to get it; `tell`: how it would be told."""
    if right.may is None:
        return warning(check, f"{unknown}: {right.why}", tell)
    if right.may:
        return ok(check, right.why)
    return bad(check, right.why, f"{right.fix or allow}; nothing is launched before")


def of_holes(pages: Iterable[Page], fix: str) -> Iterator[Finding]:
    """Yield a finding for each kind that a sweep does not see whole."""
    wrong = {page.kind: page.error for page in pages if page.error is not None}
    for kind, error in wrong.items():
        yield warning("sweep", f"no sweep sees each {kind.value}: {error}", fix)


def of_clock(skew: float, *, refused: float, whose: str) -> Finding:
    """Return the finding about a host's clock that is `skew` seconds ahead. `refused`: from so far
    off `whose` cloud takes nothing that it signs."""
    text = f"this host's is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) > refused:
        return bad("clock", f"{text}: {whose} refuses what it signs", "set it: NTP")
    return warning("clock", text, "set it: NTP") if abs(skew) > SKEWED else ok("clock", text)


def each(
    checks: Mapping[str, Callable[[], Iterable[Finding]]], otherwise: str
) -> Iterator[Finding]:
    """Yield all that these checks find; one that fails hinders no other."""
    for name, check in checks.items():
        try:
            yield from check()
        except CallFailed as failed:
            yield of_failure(name, failed.error, otherwise)
        except (ConfigError, ProviderError) as error:
            yield of_failure(name, error, otherwise)
