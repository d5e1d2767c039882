"""Log lines of what becomes of VMs and builds, for operators: one for each event, none for a tick.
Their ids are fields of the record, which a log of JSON has as they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from vmrunner.engine.context import log
from vmrunner.errors import BadOrder, CredentialsRefused, NoCapacity, QuotaExceeded
from vmrunner.model import BuildRecord, Death, Instance


def fields(**named: object) -> dict[str, Mapping[str, Any]]:
    """The `extra` of a log call: the fields that are known."""
    return {"fields": {name: value for name, value in named.items() if value not in (None, "")}}


def requested(row: Instance) -> None:
    """A provider is asked for a VM."""
    whose, machine = row.build or f"pool {row.pool}", row.offer.machine_type
    _tell(row, f"{row.id} is asked for: {row.provider}, {machine}, for {whose}", machine=machine)


def refused(row: Instance, error: BaseException) -> None:
    """A provider makes none; an answer that leaves it in doubt is not logged."""
    if isinstance(error, NoCapacity | QuotaExceeded | CredentialsRefused | BadOrder):
        _tell(row, f"{row.id} is refused by {row.provider}: {error}", reason=type(error).__name__)


def claimed(build: BuildRecord, row: Instance) -> None:
    """A build got a VM that waited."""
    _tell(row, f"{build.id} has {row.id}, which waited in pool {row.pool}", build=build.id)


def began(build: BuildRecord, row: Instance) -> None:
    """The steps of a build begin, or a sandbox is ready."""
    _tell(row, f"{build.id} runs on {row.id}, attempt {build.attempt}", build=build.id)


def gone(row: Instance, death: Death) -> None:
    """A VM was seen dead, and its row is closed."""
    _tell(row, f"{row.id} is gone: {death}", reason=death.value)


def ended(build: BuildRecord) -> None:
    """A build has its result."""
    if not log.isEnabledFor(logging.INFO):
        return
    result = build.result.value if build.result else ""
    reason = build.reason.value if build.reason else ""
    code = "" if build.exit_code is None else f" {build.exit_code}"
    log.info(
        "%s ended: %s, %s%s",
        build.id,
        result,
        reason,
        code,
        extra=fields(
            build=build.id,
            instance=build.instance,
            provider=build.spec.provider,
            result=result,
            reason=reason,
            exit_code=build.exit_code,
        ),
    )


def _tell(row: Instance, text: str, **more: object) -> None:
    if log.isEnabledFor(logging.INFO):
        named = {"build": row.build, "instance": row.id, "provider": row.provider, "pool": row.pool}
        log.info("%s", text, extra=fields(**named | more))
