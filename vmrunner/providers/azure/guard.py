"""The guard in the subscription, as far as it can be seen: the function app that
deploy/azure/terraform makes, whose tags tell what it ends, and the time of its last pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from vmrunner.lib import resources
from vmrunner.model import TAG, Finding
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.client import Answer, AzureClient, part
from vmrunner.providers.azure.identity import GROUP_RIGHT, GROUP_VERSION
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.resources import tags
from vmrunner.providers.common import guard_liveness
from vmrunner.providers.common.call_failed import tolerated
from vmrunner.providers.common.findings import bad, warning

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


def findings(
    options: AzureOptions, client: AzureClient, now: Callable[[], float]
) -> Iterator[Finding]:
    """Check that the guard is there, and lives. `now`: by Azure's clock. Raises `CallFailed`."""
    name = name_of(options.installation)
    if options.guard is None:
        yield warning(
            "guard",
            "Azure deallocates a VM 10 minutes past its deadline, if it was armed; nothing in the "
            "subscription ends one that was not, nor a disk or an address, when vmrunner is gone",
            f"apply {module()}, and name its group as providers.{options.name}.guard",
        )
        return
    found = _app(options, client)
    if found is None:
        fix = f"terraform apply, with the module {module()}"
        yield bad("guard", f"there is no {name} in {options.guard}", fix)
    elif (state := part(found, "properties", "state")) != "Running":
        yield bad("guard", f"{name} is {state}", f"az functionapp start --name {name}")
    else:
        fix = f"terraform apply, with the module {module()}; then its log tells what is wrong"
        last = last_pass(options, client)
        yield guard_liveness.finding(name, last, now(), fix)


def roles(
    options: AzureOptions, client: AzureClient, now: Callable[[], float]
) -> frozenset[str] | None:
    """Return the roles of what the guard ends; None: there is none that passed of late. Raises
    `CallFailed`."""
    found = _app(options, client) if options.guard is not None else None
    if found is None or part(found, "properties", "state") != "Running":
        return None
    last = last_pass(options, client)
    if not guard_liveness.lives(last, now()):
        return None
    return frozenset(re.findall(r"[a-z]+", str(part(found, "tags", ROLES) or "")))


def last_pass(options: AzureOptions, client: AzureClient) -> float | None:
    """Time of the guard's last pass in epoch seconds, from a tag of its own group; None: never, or
    it does not tell. Raises `CallFailed`."""
    path = f"/subscriptions/{options.subscription}/resourceGroups/{options.guard}"
    group = client.get(path, action=GROUP_RIGHT, version=GROUP_VERSION)
    return guard_liveness.last_pass(tags(group).get(f"{TAG}{guard_liveness.SIGN}"))


def _app(options: AzureOptions, client: AzureClient) -> Answer | None:
    path = (
        f"/subscriptions/{options.subscription}/resourceGroups/{options.guard}/providers/"
        f"Microsoft.Web/sites/{name_of(options.installation)}"
    )
    with tolerated({*error_codes.MISSING, error_codes.NO_GROUP}):
        return client.get(path, action=_RIGHT, version=_VERSION)
    return None
