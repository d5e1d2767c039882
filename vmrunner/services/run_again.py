"""The same build once more."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from vmrunner.errors import ConfigError, NotAllowed, NotFound
from vmrunner.model import LOCAL_TENANT
from vmrunner.model.principals import UNFILTERED
from vmrunner.services import ceilings
from vmrunner.services.admission import allow, limit_cost, refuse_foreign_labels
from vmrunner.services.requests import CheckedRequest, check_again
from vmrunner.services.submit import AdmittedBuild

if TYPE_CHECKING:
    from vmrunner.model import BuildRecord, Principal
    from vmrunner.services.submit import Submission


def run_again(submission: Submission, principal: Principal, row: BuildRecord) -> BuildRecord:
    """Queue what a build was, for a principal. Raises ConfigError where its secrets or its source
    are gone, or the configuration does not allow it any more; NotAllowed where another tenant
    uploaded that or its caches would be another's; QuotaUsedUp."""
    if row.spec.secrets:
        raise ConfigError(
            "secrets: their values went with the build", hint="submit it again with them"
        )
    if row.spec.caches:  # its steps would fill the principal's, and read them
        _refuse_foreign(row, principal, "caches", "submitted it, and fills its own alone")
    refuse_foreign_labels(submission, principal, row.spec.labels)
    digest = None
    if row.spec.source is not None:
        _refuse_foreign(row, principal, "source", "uploaded it, and no other may have it built")
        try:
            digest = submission.transfer().again(row, tenant=principal.tenant)
        except NotFound:
            raise ConfigError(
                "source: it went with the build", hint="submit it again with it"
            ) from None
    check_again(row.spec, submission.settings)
    spec = replace(row.spec, idempotency_key=None)
    checked = CheckedRequest(spec=spec, secrets={})
    allow(checked, principal)
    ceilings.check_image(spec, submission.settings, submission.ledgers.open(), remote=True)
    packed = submission.place(AdmittedBuild(checked=checked, image=None), digest=digest)
    limit_cost(submission, principal)
    build, _ = submission.queue(
        packed, tenant=principal.tenant, actor=principal.actor, most=principal.quota.builds
    )
    return build


def _refuse_foreign(row: BuildRecord, principal: Principal, field: str, why: str) -> None:
    """Refuse what is another tenant's, though the principal sees its builds."""
    if row.tenant != principal.tenant:
        raise NotAllowed(
            f"{field}: {_spoken(row.tenant)} {why}",
            hint="run it again with a token of that tenant, or read it and submit it yourself",
        )


def _spoken(tenant: str) -> str:
    """Return the words for a tenant."""
    if tenant == LOCAL_TENANT:
        return "a user of the ledger itself"
    if tenant == UNFILTERED:
        return "a token without labels"
    labels = json.loads(tenant)
    return "the tenant " + ", ".join(f"{name}={value}" for name, value in labels.items())
