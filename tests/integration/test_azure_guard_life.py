"""The sign of life of Azure's guard: who leaves it, and what is believed without it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from deploy.azure.guard import function_app
from tests.support.azure import INSTALLATION, Microsoft, make_order
from tests.support.azure import azure as azure  # the fixture
from vmrunner.model import Level, Spec
from vmrunner.providers.azure import guard
from vmrunner.providers.port_guard import GUARD_INTERVAL

GROUP: Final = "guards"
ALL: Final = {"build", "pool", "image"}
PERIODS: Final = 3 * GUARD_INTERVAL


def installed(azure: Microsoft) -> None:
    """An app as Terraform makes it before its code arrives."""
    azure.cloud.group(GROUP)
    tags = {guard.ROLES: "build, pool, image"}
    azure.cloud.site(GROUP, guard.name_of(INSTALLATION), tags=tags)


def run(azure: Microsoft, **more: Any) -> None:
    values = {
        "installation": INSTALLATION,
        "subscription": azure.site.subscription,
        "group": azure.site.group,
        "own_group": GROUP,
    }
    settings = function_app.Settings(**{**values, **more})
    clock = azure.clock
    function_app.run(settings, {}, clock(), base=azure.cloud.url, clock=clock, sleep=clock.sleep)


def roles(azure: Microsoft) -> set[str]:
    return set(azure.provider(guard=GROUP).guarded_roles() or ())


def first_warning(azure: Microsoft) -> str:
    """What the first launch tells of the guard; "": nothing."""
    provider = azure.provider(guard=GROUP)
    provider.offers(Spec())
    found = [finding for finding in provider.unguarded() if finding.check == "guard"]
    assert all(finding.level is Level.ERROR for finding in found)
    return "".join(finding.message for finding in found)


def test_an_app_without_our_code_guards_nothing(azure: Microsoft) -> None:
    installed(azure)
    assert (roles(azure), "never passed" in first_warning(azure)) == (set(), True)
    run(azure)
    assert (roles(azure), first_warning(azure)) == (ALL, "")
    azure.clock.advance(PERIODS - 2)
    assert roles(azure) == ALL
    azure.clock.advance(4)
    assert (roles(azure), "ends nothing" in first_warning(azure)) == (set(), True)


def test_a_dry_run_is_no_pass(azure: Microsoft) -> None:
    installed(azure)
    run(azure, dry_run=True)
    assert roles(azure) == set()


def test_a_pass_that_sees_no_vm_leaves_no_sign(azure: Microsoft) -> None:
    installed(azure)
    azure.cloud.faults.deny("virtualMachines.list")
    with pytest.raises(function_app.GuardFailed):
        run(azure)
    azure.cloud.faults.denied.clear()
    assert roles(azure) == set()


def test_a_pass_that_may_end_no_vm_leaves_no_sign(azure: Microsoft) -> None:
    """It lists them, and that is all: its role was changed, or somebody denies it."""
    provider = azure.provider()
    order = make_order(provider)
    provider.create(order)
    installed(azure)
    azure.clock.advance(order.deadline - azure.clock() + 1000)
    azure.cloud.faults.deny("virtualMachines.delete")
    with pytest.raises(function_app.GuardFailed):
        run(azure)
    assert roles(azure) == set()
    azure.cloud.faults.denied.clear()
    run(azure)
    assert (roles(azure), azure.cloud.count("virtualMachines.delete")) == (ALL, 2)


def test_one_disk_that_stays_makes_a_guard_no_less_alive(azure: Microsoft) -> None:
    installed(azure)
    azure.cloud.faults.deny("disks.list")
    with pytest.raises(function_app.GuardFailed):
        run(azure)
    assert roles(azure) == ALL


def test_a_sign_that_may_not_be_left_is_told(azure: Microsoft) -> None:
    installed(azure)
    azure.cloud.faults.deny("tags.patch")
    with pytest.raises(function_app.Refused, match="AuthorizationFailed"):
        run(azure)
    assert roles(azure) == set()


def test_a_sign_leaves_the_groups_other_tags(azure: Microsoft) -> None:
    installed(azure)
    azure.cloud.groups[GROUP]["tags"]["owner"] = "ops"
    run(azure)
    assert azure.cloud.groups[GROUP]["tags"].keys() == {"owner", "vmrunner:last-pass"}
