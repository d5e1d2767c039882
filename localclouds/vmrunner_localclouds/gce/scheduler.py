"""Cloud Scheduler and IAM, as far as a guard is seen by them: jobs are made and read, and none is
ever run; accounts are made and have a description."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce import billing
from vmrunner_localclouds.gce.api_error import GceRefusal
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.requests import GceRequest
from vmrunner_localclouds.gce.vendor_limits import LIMITS

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

#: Of `serviceAccounts.patch` Google lets be changed: https://cloud.google.com/iam/docs/reference/
#: rest/v1/projects.serviceAccounts/patch, "only the following fields are updatable", 2026-11.
_CHANGEABLE: Final = {"displayName", "description"}
_DESCRIPTION: Final = int(LIMITS["bytes of an account's description"].value)
_ACCOUNTS: Final = "projects/-/serviceAccounts/"
_JOBS: Final = re.compile(r"projects/[^/]+/locations/[^/]+/jobs")
_PROJECT: Final = re.compile(r"projects/([^/]+)/serviceAccounts")
#: "must be 6-30 characters long, and match": https://cloud.google.com/iam/docs/reference/rest/v1/
#: projects.serviceAccounts/create, 2026-12.
_ACCOUNT_ID: Final = re.compile(r"(?=.{6,30}\Z)[a-z]([-a-z0-9]*[a-z0-9])")


def answer(cloud: LocalGce, request: GceRequest) -> Json:
    """Answer what no method of Compute Engine's is for. Raises `GceRefusal`."""
    verb, _, path = request.action.partition(" ")
    name = path.removeprefix("/v1/")
    if verb == "POST" and _JOBS.fullmatch(name):
        job: Json = request.resource | {"state": "ENABLED"}
        cloud.jobs[job["name"]] = job
        return job
    if verb == "POST" and (project := _PROJECT.fullmatch(name)):
        return _new_account(cloud, project[1], request.resource)
    if verb == "GET" and path == billing.PATH:
        return billing.skus(cloud, request)
    if verb == "GET" and name in cloud.jobs:
        return cloud.jobs[name]
    if name.startswith(_ACCOUNTS) and (email := name.removeprefix(_ACCOUNTS)) in cloud.accounts:
        account = cloud.accounts[email]
        if verb == "PATCH":
            _patch(account, request.resource)
        return account
    raise GceRefusal(404, "notFound", f"Google has nothing there: {request.action}")


def _new_account(cloud: LocalGce, project: str, body: Json) -> Json:
    if not _ACCOUNT_ID.fullmatch(str(body.get("accountId"))):
        raise GceRefusal(400, "badRequest", f"{body.get('accountId')!r} is no account id")
    email = f"{body['accountId']}@{project}.iam.gserviceaccount.com"
    if email in cloud.accounts:
        raise GceRefusal(409, "alreadyExists", f"Service account {email} already exists")
    cloud.accounts[email] = {**body.get("serviceAccount", {}), "email": email}
    return cloud.accounts[email]


def _patch(account: Json, body: Json) -> None:
    fields, wanted = set(body["updateMask"].split(",")), body["serviceAccount"]
    if not fields <= _CHANGEABLE:
        raise GceRefusal(400, "badRequest", f"cannot update {sorted(fields - _CHANGEABLE)}")
    if len(wanted.get("description", "").encode()) > _DESCRIPTION:
        raise GceRefusal(400, "badRequest", "description is too long")
    account.update({field: wanted[field] for field in fields})
