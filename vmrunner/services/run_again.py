"""The same build once more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vmrunner.errors import ConfigError, NotFound
from vmrunner.services.remote_submit import allow
from vmrunner.services.requests import CheckedRequest
from vmrunner.services.submit import AdmittedBuild

if TYPE_CHECKING:
    from vmrunner.model import BuildRecord, Principal
    from vmrunner.services.submit import Submission


def run_again(submission: Submission, principal: Principal, row: BuildRecord) -> BuildRecord:
    """Queue what a build was, for a principal. Raises ConfigError where its secrets or its source
    are gone, NotAllowed, QuotaUsedUp."""
    if row.spec.secrets:
        raise ConfigError(
            "secrets: their values went with the build", hint="submit it again with them"
        )
    digest = None
    if row.spec.source is not None:
        try:
            digest = submission.transfer().again(row, tenant=principal.tenant)
        except NotFound:
            raise ConfigError(
                "source: it went with the build", hint="submit it again with it"
            ) from None
    spec = replace(row.spec, idempotency_key=None)
    checked = CheckedRequest(spec=spec, secrets={})
    allow(checked, principal)
    packed = submission.place(AdmittedBuild(checked=checked, image=None), digest=digest)
    build, _ = submission.queue(
        packed, tenant=principal.tenant, actor=principal.actor, most=principal.quota.builds
    )
    return build
