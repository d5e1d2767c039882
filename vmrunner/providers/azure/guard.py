"""The guard in the subscription, as far as it can be seen: the function app that
deploy/azure/terraform makes, whose tags tell what it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vmrunner.lib import resources
from vmrunner.model import TAG, Finding
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import Answer, AzureClient, part
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.findings import bad, ok, warning

#: Of the function app: the roles of what it ends, with commas.
ROLES: Final = f"{TAG}roles"
_RIGHT: Final = "Microsoft.Web/sites/read"
_VERSION: Final = "2023-12-01"


def name_of(installation: str) -> str:
    """Return the name of its function app."""
    return f"vmrunner-guard-{installation[:8]}"


def module() -> Path:
    """The Terraform module that makes it."""
    return resources.path("deploy") / "azure/terraform"


def findings(options: AzureOptions, calls: AzureClient) -> Iterator[Finding]:
    """Check that the guard is there. Raises `CallFailed`."""
    name = name_of(options.installation)
    if options.guard is None:
        yield warning(
            "guard",
            "Azure deallocates a VM 10 minutes past its deadline, if it was armed; nothing in the "
            "subscription ends one that was not, nor a disk or an address, when vmrunner is gone",
            f"apply {module()}, and name its group as providers.{options.name}.guard",
        )
        return
    found = _app(options, calls)
    if found is None:
        fix = f"terraform apply, with the module {module()}"
        yield bad("guard", f"there is no {name} in {options.guard}", fix)
    elif (state := part(found, "properties", "state")) != "Running":
        yield bad("guard", f"{name} is {state}", f"az functionapp start --name {name}")
    else:
        yield ok("guard", f"{name} is there; its alert tells whether it works")


def roles(options: AzureOptions, calls: AzureClient) -> frozenset[str] | None:
    """Return the roles of what the guard ends; None: there is none. Raises `CallFailed`."""
    found = _app(options, calls) if options.guard is not None else None
    if found is None or part(found, "properties", "state") != "Running":
        return None
    return frozenset(re.findall(r"[a-z]+", str(part(found, "tags", ROLES) or "")))


def _app(options: AzureOptions, calls: AzureClient) -> Answer | None:
    path = (
        f"/subscriptions/{options.subscription}/resourceGroups/{options.guard}/providers/"
        f"Microsoft.Web/sites/{name_of(options.installation)}"
    )
    try:
        return calls.get(path, action=_RIGHT, version=_VERSION)
    except CallFailed as failed:
        if failed.code in {*error_codes.MISSING, error_codes.NO_GROUP}:
            return None
        raise
