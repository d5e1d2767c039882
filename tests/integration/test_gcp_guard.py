"""The guard of a Google Cloud project at the local endpoint: what it ends, what it leaves, what it
tells; and that its role names exactly what it calls."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import yaml
from vmrunner_localclouds.gce import DELETING, INTERNAL, THROTTLED, UNAVAILABLE

from deploy.gcp.guard import main as guard
from tests.support.gce import INSTALLATION, Google, make_order
from tests.support.gce import gce as gce  # the fixture
from vmrunner.model import Level
from vmrunner.providers.gce import client
from vmrunner.providers.gce.client import GceApi
from vmrunner.providers.gce.guard import name_of
from vmrunner.providers.gce.labels import PREFIX

FOREIGN: Final = "00000000-0000-4000-8000-00000000000f"
GRACE: Final = guard.GRACE
MAX_TTL: Final = 14_400.0
DEPLOY: Final = Path(__file__).parents[2] / "deploy/gcp"


def sweep(gce: Google, *, dry_run: bool = False, **more: Any) -> dict[str, Any]:
    values = {
        "installation": INSTALLATION,
        "project": gce.project,
        "grace": GRACE,
        "max_ttl": MAX_TTL,
    }
    return guard.guard(
        guard.Settings(**{**values, **more}),
        requests.Session(),
        gce.cloud.now(),
        base=f"{gce.cloud.url}/compute/v1",
        dry_run=dry_run,
    )


def labelled(gce: Google, late: float = GRACE + 1, **more: str) -> dict[str, str]:
    """The labels of something that is so many seconds past its deadline."""
    values = {"installation": INSTALLATION, "role": "build", "instance": "vm-1", **more}
    values.setdefault("expires_at", str(int(gce.cloud.now() - late)))
    return {f"vmrunner-{key.replace('_', '-')}": value for key, value in values.items()}


def launch(gce: Google, labels: dict[str, str]) -> Any:
    provider = gce.provider()
    ref = provider.create(make_order(provider))
    (machine,) = gce.cloud.of(ref.id)
    machine.shown["labels"] = labels
    return machine


def place(gce: Google, collection: str, name: str, labels: dict[str, str], **more: Any) -> None:
    """Something that bills and hangs on no VM."""
    scopes = {"disks": f"zones/{gce.zone}", "addresses": "regions/europe-west1"}
    scope = scopes.get(collection, "global")
    machine = launch(gce, {})
    (model,) = (d for d in gce.cloud.disks if d["name"] == machine.shown["name"])
    base = f"{gce.cloud.url}/compute/v1/projects/{gce.project}"
    common = ("id", "creationTimestamp")
    kinds = {"addresses": "compute#address", "snapshots": "compute#snapshot"}
    resource = model if collection == "disks" else {key: model[key] for key in common}
    resource = {
        "kind": kinds.get(collection),
        "status": "RESERVED" if collection == "addresses" else "READY",
        **resource,
        "name": name,
        "selfLink": f"{base}/{scope}/{collection}/{name}",
        "labels": labels,
        "users": [],
        **more,
    }
    if collection == "snapshots":
        del resource["users"]
    if collection == "addresses":
        resource["address"] = "192.0.2.7"
    gce.cloud.shelf(collection, scope)[name] = resource
    machine.vanish()


def names(report: dict[str, Any], what: str = "ended") -> set[str]:
    return {line["id"].rpartition("/")[2] for line in report[what]}


def test_of_everything_only_what_is_ours_and_expired_ends(gce: Google) -> None:
    wanted, others = set(), set()
    for whose, role, late in itertools.product(
        (INSTALLATION, FOREIGN, ""), ("build", "image", "pool", "guard", ""), (GRACE + 1, GRACE - 1)
    ):
        machine = launch(gce, labelled(gce, late, installation=whose, role=role))
        ends = whose == INSTALLATION and role in ("build", "pool", "image") and late > GRACE
        (wanted if ends else others).add(machine.shown["name"])
    report = sweep(gce)
    assert report["failures"] == []
    assert names(report) == wanted
    assert {machine.shown["name"] for machine in gce.cloud.alive} == others


def test_every_kind_that_bills_ends_and_stopped_vms_do(gce: Google) -> None:
    labels = labelled(gce)
    for collection in ("disks", "addresses", "snapshots"):
        place(gce, collection, f"{collection}-1", labels)
        place(gce, collection, f"{collection}-2", labelled(gce, 0))
    place(gce, "disks", "disks-3", labels, users=["a/b/instances/c"])
    stopped = launch(gce, labels)
    stopped.power_off()
    report = sweep(gce)
    assert report["failures"] == []
    expired = {"disks-1", "addresses-1", "snapshots-1", stopped.shown["name"]}
    assert names(report) == expired
    assert gce.cloud.alive == []


def test_a_parked_vm_past_its_deadline_ends(gce: Google) -> None:
    """Its suspension has cleared the cloud's own."""
    parked, waits = (launch(gce, labelled(gce, late, role="pool")) for late in (GRACE, 0))
    for machine in (parked, waits):
        machine.suspend()
    assert names(sweep(gce)) == set()
    gce.clock.advance(1)
    report = sweep(gce)
    assert (names(report), report["failures"]) == ({parked.shown["name"]}, [])
    assert gce.cloud.alive == [waits]
    assert [disk["name"] for disk in gce.cloud.disks] == [waits.shown["name"]]


def test_a_dry_run_tells_and_ends_nothing(gce: Google) -> None:
    machine = launch(gce, labelled(gce))
    assert names(sweep(gce, dry_run=True)) == {machine.shown["name"]}
    assert len(gce.cloud.alive) == 1


def test_a_protected_vm_ends_too(gce: Google) -> None:
    launch(gce, labelled(gce)).shown["deletionProtection"] = True
    assert sweep(gce)["failures"] == []
    assert gce.cloud.alive == []


@pytest.mark.parametrize("text", ["", "soon", "-1", "1e9", "9" * 13, "१७"])
def test_where_the_label_cannot_be_read_the_age_alone_tells(gce: Google, text: str) -> None:
    young = launch(gce, labelled(gce, expires_at=text))
    gce.clock.advance(3000)
    assert names(sweep(gce)) == set()
    assert names(sweep(gce, max_ttl=None), "unreadable") == {young.shown["name"]}
    assert names(sweep(gce, max_ttl=1000)) == {young.shown["name"]}


def test_a_lowered_limit_ends_nothing_promised_before(gce: Google) -> None:
    machine = launch(gce, labelled(gce, expires_at=str(int(gce.cloud.now() + 7200))))
    machine.power_off()  # or its own deadline ends it
    gce.clock.advance(7200 + GRACE)
    assert names(sweep(gce, max_ttl=3600)) == set()
    gce.clock.advance(1)
    assert names(sweep(gce, max_ttl=3600)) == {machine.shown["name"]}


@pytest.mark.parametrize(
    ("label", "today", "life"),
    [("7200", 3600, 7200), ("7200", None, 7200), ("", 3600, 3600), ("2h", 3600, 3600)],
)
def test_without_a_deadline_the_limit_at_birth_counts(
    gce: Google, label: str, today: float | None, life: int
) -> None:
    machine = launch(gce, labelled(gce, expires_at="soon", max_ttl=label))
    machine.power_off()
    gce.clock.advance(life + GRACE)
    assert names(sweep(gce, max_ttl=today)) == set()
    gce.clock.advance(1)
    assert names(sweep(gce, max_ttl=today)) == {machine.shown["name"]}


@pytest.mark.parametrize("action", ["instances", "disks", "addresses"])
def test_an_unreadable_kind_holds_no_other_back(gce: Google, action: str) -> None:
    for collection in ("disks", "addresses", "snapshots"):
        place(gce, collection, f"{collection}-1", labelled(gce))
    machine = launch(gce, labelled(gce))
    gce.cloud.faults.deny(f"{action}.aggregatedList")
    report = sweep(gce)
    (failure,) = report["failures"]
    assert "403" in failure["error"]
    every = {"disks-1", "addresses-1", "snapshots-1", machine.shown["name"]}
    denied = machine.shown["name"] if action == "instances" else f"{action}-1"
    assert names(report) == every - {denied}


def test_short_failures_are_retried_and_a_missing_zone_is_told(
    gce: Google,
) -> None:
    machine = launch(gce, labelled(gce))
    gce.cloud.faults.fail("instances.aggregatedList", INTERNAL, UNAVAILABLE)
    gce.cloud.faults.fail("instances.delete", UNAVAILABLE)
    gce.cloud.unreachable.add(f"zones/{gce.site.zones[2]}")
    report = sweep(gce)
    assert names(report) == {machine.shown["name"]}
    assert {line["kind"] for line in report["failures"]} == {"instance", "disk"}
    assert all("unreachable" in line["error"].lower() for line in report["failures"])


@pytest.mark.parametrize("partial", [True, False])
def test_a_zone_that_is_away_saves_nothing_in_another(gce: Google, *, partial: bool) -> None:
    """Whether a list over all zones leaves it out or fails with it."""
    gce.cloud.partial_lists = partial
    for collection in ("disks", "addresses", "snapshots"):
        place(gce, collection, f"{collection}-1", labelled(gce))
    machine = launch(gce, labelled(gce))
    away = gce.site.zones[2]
    gce.cloud.unreachable.add(f"zones/{away}")
    report = sweep(gce)
    assert names(report) == {"disks-1", "addresses-1", "snapshots-1", machine.shown["name"]}
    assert {line["kind"] for line in report["failures"]} == {"instance", "disk"}
    assert all(away in line["error"] for line in report["failures"])
    assert sweep(gce)["ended"] == []
    assert gce.cloud.rejected == []  # such as returnPartialSuccess, which is gone


def test_unlistable_zones_are_told_and_the_rest_is_ended(gce: Google) -> None:
    place(gce, "addresses", "address-1", labelled(gce))
    gce.cloud.partial_lists = False
    gce.cloud.unreachable.add(f"zones/{gce.site.zones[2]}")
    gce.cloud.faults.deny("zones.list")
    report = sweep(gce)
    assert names(report) == {"address-1"}
    assert [line["kind"] for line in report["failures"]] == ["instance", "disk"]
    assert all("zones: Refused: 403" in line["error"] for line in report["failures"])


def test_foreign_deletes_are_no_failure_and_project_limits_are(gce: Google) -> None:
    busy, other = launch(gce, labelled(gce)), launch(gce, labelled(gce))
    gce.cloud.faults.on_request = lambda r: (
        {busy.shown["name"]: DELETING, other.shown["name"]: THROTTLED}[r.path["instance"]]
        if r.action == "instances.delete"
        else None
    )
    report = sweep(gce)
    assert names(report, "held") == {busy.shown["name"]}
    assert names(report, "failures") == {other.shown["name"]}


def test_one_that_may_not_be_ended_saves_no_other(gce: Google) -> None:
    poison, other = launch(gce, labelled(gce)), launch(gce, labelled(gce))
    gce.cloud.faults.on_request = lambda r: (
        INTERNAL
        if r.action == "instances.delete" and r.path["instance"] == poison.shown["name"]
        else None
    )
    report = sweep(gce)
    assert names(report) == {other.shown["name"]}
    assert names(report, "failures") == {poison.shown["name"]}


def test_every_page_is_read(gce: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PAGE", 2)
    for _ in range(5):
        launch(gce, labelled(gce))
    assert len(names(sweep(gce))) == 5


def test_any_installation_where_it_is_told_so(gce: Google) -> None:
    mine, theirs = launch(gce, labelled(gce)), launch(gce, labelled(gce, installation=FOREIGN))
    launch(gce, {})
    report = sweep(gce, installation="*")
    assert names(report) == {mine.shown["name"], theirs.shown["name"]}


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "VMRUNNER_INSTALLATION"),
        ({"VMRUNNER_INSTALLATION": "x", "VMRUNNER_GRACE": "8m"}, "VMRUNNER_GRACE: '8m'"),
        ({"VMRUNNER_INSTALLATION": "x", "VMRUNNER_MAX_TTL": "-1"}, "VMRUNNER_MAX_TTL: '-1'"),
    ],
)
def test_what_cannot_be_is_said(environment: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        guard.Settings.read(environment)


# --- is it there? ---


def job_of(gce: Google) -> str:
    return f"projects/{gce.project}/locations/europe-west1/jobs/{name_of(INSTALLATION)}"


@pytest.mark.parametrize(
    ("job", "level", "message"),
    [
        (None, "error", "nothing invokes it"),
        ({"state": "PAUSED"}, "error", "its schedule is PAUSED"),
        ({}, "error", "it was not invoked in the last 20 minutes"),
        ({"ago": 1300}, "error", "it was not invoked in the last 20 minutes"),
        ({"ago": 60, "status": {"code": 13}}, "error", "its last invocation failed with code 13"),
        ({"ago": 60, "status": {}}, "ok", "works"),
    ],
)
def test_doctor_tells_of_the_guard(
    gce: Google, job: dict[str, Any] | None, level: str, message: str
) -> None:
    email, name = f"{name_of(INSTALLATION)}@{gce.project}.iam.gserviceaccount.com", job_of(gce)
    gce.cloud.accounts[email] = {"description": f"last-pass={int(gce.cloud.now()) - 100}"}
    if job is not None:
        schedule = {"name": name, "state": "ENABLED", **job}
        if "ago" in schedule:
            at = datetime.fromtimestamp(gce.cloud.now() - schedule.pop("ago"), UTC)
            schedule["lastAttemptTime"] = at.isoformat().replace("+00:00", "Z")
        gce.cloud.jobs[name] = schedule
    provider = gce.provider(guard="europe-west1")
    (found,) = [finding for finding in provider.check() if finding.check == "guard"]
    assert (found.level.value, message in found.message) == (level, True), found.message


def test_without_a_guard_doctor_and_first_launch_warn(
    gce: Google,
) -> None:
    provider = gce.provider()
    (found,) = [finding for finding in provider.check() if finding.check == "guard"]
    assert found.level is Level.WARNING
    assert "nothing in the project ends one that was stopped" in found.message
    assert tuple(provider.unguarded()) == (found,)


def test_terraform_and_doctor_name_the_same_job() -> None:
    text = (DEPLOY / "terraform/main.tf").read_text()
    assert '"vmrunner-guard-${substr(var.installation, 0, 8)}"' in text
    assert name_of(INSTALLATION) == "vmrunner-guard-00000000"


# --- roles ---------------------------------------------------------------------------------------


def permissions(name: str) -> set[str]:
    role = yaml.safe_load((DEPLOY / name).read_text())
    assert role["stage"] == "GA"
    return set(role["includedPermissions"])


#: What IAM calls a method's permission, where that is not its name.
_NAMES: Final = {
    "aggregatedList": "list",
    "insert": "create",
    "patch": "update",
    "wait": "get",
}


def permission(method: str) -> str:
    collection, _, verb = method.partition(".")
    return f"compute.{collection}.{_NAMES.get(verb, verb)}"


def test_the_role_of_vmrunner_names_what_the_driver_calls() -> None:
    made = {permission(v.action) for v in vars(client).values() if isinstance(v, GceApi)}
    free = {"compute.instances.testIamPermissions"}  # needs none
    # What an insert asks for beside: its disk, its image, its network, its labels and metadata.
    beside = {
        "cloudscheduler.jobs.get",
        "iam.serviceAccounts.get",  # of the guard's, for its last pass
        "compute.disks.create",
        "compute.disks.setLabels",
        "compute.images.useReadOnly",
        "compute.instances.setLabels",
        "compute.instances.setMetadata",
        "compute.instances.setServiceAccount",  # with the option `service_account`
        "compute.instances.setTags",
        "compute.instances.updateShieldedInstanceConfig",
        "compute.subnetworks.use",
        "compute.subnetworks.useExternalIp",
    }
    assert permissions("role.yaml") == (made - free) | beside


def test_the_role_of_the_guard_names_what_it_calls(gce: Google) -> None:
    for collection in ("disks", "addresses", "snapshots"):
        place(gce, collection, f"{collection}-1", labelled(gce))
    launch(gce, labelled(gce)).shown["deletionProtection"] = True
    gce.cloud.requests.clear()
    gce.cloud.faults.fail("instances.aggregatedList", *[INTERNAL] * guard.TRIES)
    assert sweep(gce)["failures"] == []
    requested = {permission(request.action) for request in gce.cloud.requests}
    assert permissions("guard-role.yaml") == requested | {"compute.globalAddresses.delete"}


def test_the_guard_and_the_driver_use_the_same_words() -> None:
    assert guard.LABEL == PREFIX
