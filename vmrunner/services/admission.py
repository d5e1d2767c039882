"""Submission for a caller from elsewhere: within its quota, under its labels, of values alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vmrunner.errors import ConfigError, NotAllowed
from vmrunner.lib import units
from vmrunner.model.principals import OIDC
from vmrunner.services import ceilings, uploads
from vmrunner.services.submit import AdmittedBuild

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmrunner.config.build_request import BuildRequest
    from vmrunner.model import BuildRecord, BuildSpec, Principal
    from vmrunner.services.requests import CheckedRequest
    from vmrunner.services.submit import Submission

#: Seconds that the client of a foreground build may be silent.
SUBMITTER_LEASE: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteSubmission:
    """The build, whether it is a new one, and what its submitter should know."""

    build: BuildRecord
    new: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteAdmission:
    """A build that may be submitted, and what its submitter should know."""

    checked: CheckedRequest
    warnings: tuple[str, ...]

    @property
    def spec(self) -> BuildSpec:
        return self.checked.spec


def submit(
    submission: Submission,
    principal: Principal,
    request: BuildRequest,
    *,
    source: str | None,
    name: str | None,
    foreground: bool,
    now: float,
    traceparent: str = "",
) -> RemoteSubmission:
    """Queue a build for a principal. `source`: the digest of what it uploaded before, `name`: what
    people call it; `foreground`: it ends unless its lease is renewed. Raises ConfigError,
    NotAllowed, NotFound for a digest that its tenant did not upload, QuotaUsedUp, or the provider's
    own refusal."""
    admission = check(submission, principal, request, source=source, name=name)
    digest = None
    if source is not None:
        digest = uploads.plain(source)
        submission.transfer().find(digest, tenant=principal.tenant)
    admitted = AdmittedBuild(checked=admission.checked, image=None)
    packed = submission.place(admitted, digest=digest)
    limit_cost(submission, principal)
    build, new = submission.queue(
        packed,
        tenant=principal.tenant,
        actor=principal.actor,
        lease_until=now + SUBMITTER_LEASE if foreground else None,
        most=principal.quota.builds,
        traceparent=traceparent,
    )
    return RemoteSubmission(build=build, new=new, warnings=admission.warnings)


def check(
    submission: Submission,
    principal: Principal,
    request: BuildRequest,
    *,
    source: str | None,
    name: str | None,
) -> RemoteAdmission:
    """All but the source and the queue: raises what `submit` would for any other reason."""
    warnings: list[str] = []
    refuse_foreign_labels(submission, principal, request.labels)
    request = ceilings.within(_labelled(request, principal), principal.quota, submission.settings)
    checked = submission.check(request)
    allow(checked, principal)
    checked = replace(checked, spec=replace(checked.spec, source=source and (name or source)))
    try:
        admitted = submission.admit(checked, warn=warnings.append, remote=True)
    except ConfigError as error:
        if checked.spec.image is None or not str(error.args[0]).startswith("image: "):
            raise
        # Which others there are, and where they lie, is the server's own.
        raise ConfigError(
            f"image: {checked.spec.image[:80]!r} cannot be had", hint="leave it out"
        ) from None
    if admitted.image is not None:
        raise ConfigError(
            f"image: {admitted.image.why}, and it is not made for a request",
            hint="on the server: vmrunner image build",
        )
    return RemoteAdmission(checked=checked, warnings=tuple(warnings))


def _labelled(request: BuildRequest, principal: Principal) -> BuildRequest:
    """The request with the labels that its token forces."""
    for name, value in principal.labels.items():
        if request.labels.get(name, value) != value:
            raise NotAllowed(
                f"labels: the token is for {name}={value}, not {name}={request.labels[name]}",
                hint="leave it out",
            )
    return request.model_copy(update={"labels": {**request.labels, **principal.labels}})


def refuse_foreign_labels(
    submission: Submission, principal: Principal, labels: Mapping[str, str]
) -> None:
    """Raises NotAllowed for a label name that other tokens, or rules of issuers, force, and this
    principal's token does not: it would be taken for a build of theirs."""
    changed = labels.keys() - principal.labels.keys()
    if not changed or not principal.labels:
        return
    forced = submission.ledgers.open().tokens.forced_labels()
    forced.update(*(rule.labels for rule in submission.settings.server.identity_rules))
    if foreign := sorted(changed & forced):
        raise NotAllowed(
            f"labels: {foreign[0]} tells whose a build is, and this token has no {foreign[0]}",
            hint=f"leave {foreign[0]} out, or call it otherwise",
        )


def limit_cost(submission: Submission, principal: Principal) -> None:
    """Note what a token's builds may cost a day, before there is one of them to be paid for."""
    usd_per_day, actor = principal.quota.usd_per_day, principal.actor
    # An identity outlives its token, and what a rule said of it before.
    if usd_per_day is not None or actor.startswith(OIDC):
        submission.ledgers.open().budgets.limit(actor, usd_per_day, time.time())


def allow(checked: CheckedRequest, principal: Principal) -> None:
    """Raises NotAllowed for what the token's quota does not cover."""
    quota, spec = principal.quota, checked.spec
    ceilings.check_quota(spec, quota)
    if quota.max_ttl is not None and spec.ttl > quota.max_ttl:
        raise NotAllowed(
            f"ttl: {units.exact(spec.ttl)} is above the token's {units.exact(quota.max_ttl)}",
            hint="a shorter ttl or timeout",
        )
    if quota.providers is not None and spec.provider not in quota.providers:
        raise NotAllowed(
            f"provider: the token is not for {spec.provider}",
            hint=f"one of: {', '.join(quota.providers)}",
        )
