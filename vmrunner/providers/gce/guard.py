"""The guard in the project, as far as it can be seen: the job of Cloud Scheduler's that invokes it,
as deploy/gcp/terraform makes it."""

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
from vmrunner.providers.common.findings import bad, ok, warning
from vmrunner.providers.gce import rest
from vmrunner.providers.gce.options import GceOptions
from vmrunner.providers.port_guard import ROLES_ONCE, SILENCE

SCHEDULER: Final = "https://cloudscheduler.googleapis.com"
_TIMEOUT: Final = 20.0  # seconds
_ROLES: Final = re.compile(r"Roles: ([a-z, ]+)\.")


def name_of(installation: str) -> str:
    """Return the name of its job, its function and its account."""
    return f"vmrunner-guard-{installation[:8]}"


def module() -> Path:
    """The Terraform module that makes it."""
    return resources.path("deploy") / "gcp/terraform"


def findings(options: GceOptions, project: str, now: float) -> Iterator[Finding]:
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
        answer = rest.session(options).get(
            f"{rest.base(options, SCHEDULER)}/v1/{job}", timeout=_TIMEOUT
        )
        found: Any = answer.json() if answer.ok else {}
    except (auth_errors.GoogleAuthError, requests.RequestException, ValueError) as error:
        yield warning("guard", f"it cannot be told: {error}", "see docs/gcp.md")
        return
    if answer.status_code == 404:
        fix = f"terraform apply, with the module {module()}"
        yield bad("guard", f"there is no {job}: nothing invokes it", fix)
    elif not answer.ok:
        fix = "allow cloudscheduler.jobs.get to these credentials"
        yield warning("guard", f"it cannot be told: {answer.status_code} for {job}", fix)
    else:
        yield _of(found, now)


def _of(job: Any, now: float) -> Finding:
    fix = f"its log, and gcloud scheduler jobs describe {job.get('name')}"
    if job.get("state") != "ENABLED":
        return bad("guard", f"its schedule is {job.get('state')}", fix)
    last = job.get("lastAttemptTime", "")
    if not last or now - datetime.fromisoformat(last).timestamp() > SILENCE:
        minutes = SILENCE // 60
        return bad("guard", f"it was not invoked in the last {minutes} minutes", fix)
    if code := job.get("status", {}).get("code", 0):
        return bad("guard", f"its last invocation failed with code {code}", fix)
    return ok("guard", f"{job.get('name')} works")


def roles(options: GceOptions, project: str) -> frozenset[str] | None:
    """Return the roles of what the guard ends, as its job says; None: there is none. Raises
    requests' and google.auth's errors."""
    if options.guard is None:
        return None
    url = f"{rest.base(options, SCHEDULER)}/v1/{_job(options, project)}"
    answer = rest.session(options).get(url, timeout=_TIMEOUT)
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    told = _ROLES.search(str(answer.json().get("description", "")))
    return frozenset(re.split(", *", told[1])) if told else ROLES_ONCE


def _job(options: GceOptions, project: str) -> str:
    return f"projects/{project}/locations/{options.guard}/jobs/{name_of(options.installation)}"
