"""The guard in the project, as far as it can be seen: the job of Cloud Scheduler's that invokes it,
as deploy/gcp/terraform makes it, and the last pass that it leaves in its own account's
description."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import requests
from google.auth import exceptions as auth_errors

from vmrunner.lib import resources
from vmrunner.model import Finding
from vmrunner.providers.common import guard_liveness
from vmrunner.providers.common.clock import CloudClock
from vmrunner.providers.common.findings import bad, warning
from vmrunner.providers.gce import rest
from vmrunner.providers.gce.options import GceOptions
from vmrunner.providers.port_guard import ROLES_ONCE, SILENCE

SCHEDULER: Final = "https://cloudscheduler.googleapis.com"
IAM: Final = "https://iam.googleapis.com"
_TIMEOUT: Final = 20.0  # seconds
_ROLES: Final = re.compile(r"Roles: ([a-z, ]+)\.")
_LAST_PASS: Final = re.compile(rf"{guard_liveness.SIGN}=(\d+)", re.ASCII)


def name_of(installation: str) -> str:
    """Return the name of its job, its function and its account."""
    return f"vmrunner-guard-{installation[:8]}"


def module() -> Path:
    """The Terraform module that makes it."""
    return resources.path("deploy") / "gcp/terraform"


def findings(options: GceOptions, project: str, clock: CloudClock) -> Iterator[Finding]:
    """Check that the guard is there, and works."""
    if options.guard is None:
        yield warning(
            "guard",
            "Compute Engine deletes a running VM at its deadline; nothing in the project ends one "
            "that was stopped before, nor a disk, an address or a snapshot, when vmrunner is gone",
            f"apply {module()}, and name its region as providers.{options.name}.guard",
        )
        return
    job = _job(options, project)
    try:
        answer = _get(options, clock, SCHEDULER, job)
        found: Any = answer.json() if answer.ok else {}
        account = _get(options, clock, IAM, _account(options, project))
        last = _last_pass(account)
    except (auth_errors.GoogleAuthError, requests.RequestException, ValueError) as error:
        yield warning("guard", f"it cannot be told: {error}", "see docs/gcp.md")
        return
    if answer.status_code == 404:
        fix = f"terraform apply, with the module {module()}"
        yield bad("guard", f"there is no {job}: nothing invokes it", fix)
    elif not answer.ok:
        fix = "allow cloudscheduler.jobs.get to these credentials"
        yield warning("guard", f"it cannot be told: {answer.status_code} for {job}", fix)
    elif account.status_code == 403:
        fix = "allow iam.serviceAccounts.get to these credentials"
        yield warning("guard", "its last pass cannot be told: 403 for its account", fix)
    else:
        yield _of(found, last, clock.now())


def _of(job: Any, last: float | None, now: float) -> Finding:
    fix = f"its log, and gcloud scheduler jobs describe {job.get('name')}"
    if job.get("state") != "ENABLED":
        return bad("guard", f"its schedule is {job.get('state')}", fix)
    attempt = job.get("lastAttemptTime", "")
    if not attempt or now - datetime.fromisoformat(attempt).timestamp() > SILENCE:
        minutes = SILENCE // 60
        return bad("guard", f"it was not invoked in the last {minutes} minutes", fix)
    if code := job.get("status", {}).get("code", 0):
        return bad("guard", f"its last invocation failed with code {code}", fix)
    upgrade = f"its log; an older guard is brought up to date by terraform apply in {module()}"
    return guard_liveness.finding(str(job.get("name")), last, now, upgrade)


def roles(options: GceOptions, project: str, clock: CloudClock) -> frozenset[str] | None:
    """Return the roles of what the guard ends, as its job says; None: there is none that passed of
    late. Raises requests' and google.auth's errors."""
    if options.guard is None:
        return None
    answer = _get(options, clock, SCHEDULER, _job(options, project))
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    account = _get(options, clock, IAM, _account(options, project))
    if account.status_code != 404:
        account.raise_for_status()
    if not guard_liveness.lives(_last_pass(account), clock.now()):
        return None
    found = _ROLES.search(str(answer.json().get("description", "")))
    return frozenset(re.split(", *", found[1])) if found else ROLES_ONCE


def _get(options: GceOptions, clock: CloudClock, service: str, name: str) -> requests.Response:
    """Make a GET, and note the time of Google's cloud from its answer."""
    url = f"{rest.base(options, service)}/v1/{name}"
    answer = rest.session(options).get(url, timeout=_TIMEOUT)
    if answer.ok:
        clock.observe(answer.headers.get("Date"))
    return answer


def _last_pass(account: requests.Response) -> float | None:
    """Return the last pass that the guard left with its account."""
    text = str(account.json().get("description", "")) if account.ok else ""
    found = _LAST_PASS.search(text)
    return guard_liveness.last_pass(found[1]) if found else None


def _job(options: GceOptions, project: str) -> str:
    return f"projects/{project}/locations/{options.guard}/jobs/{name_of(options.installation)}"


def _account(options: GceOptions, project: str) -> str:
    """Return the name of the account as which it runs. `example.com:project` is written the other
    way round in an address."""
    host = ".".join(reversed(project.split(":")))
    address = f"{name_of(options.installation)}@{host}.iam.gserviceaccount.com"
    return f"projects/-/serviceAccounts/{address}"
