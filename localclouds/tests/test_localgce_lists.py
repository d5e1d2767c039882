"""Lists of the local GCE, by Google's own client: pages, filters, sections, what is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests
from google.cloud import compute_v1
from vmrunner_localclouds.gce.api_error import GceRefusal
from vmrunner_localclouds.gce.filters import compiled

from tests.support.gce import Google, refused
from tests.support.gce import gce as gce  # the fixture


def aggregated(gce: Google, **query: Any) -> Any:
    """The first page, as it is on the wire."""
    answer = requests.get(
        f"{gce.cloud.url}/compute/v1/projects/{gce.project}/aggregated/instances",
        params=query,
        timeout=10,
    )
    return json.loads(answer.content)


def names(gce: Google, **query: Any) -> list[str]:
    """Of instances, by the client, over all pages."""
    request = compute_v1.ListInstancesRequest(project=gce.project, zone=gce.zone, **query)
    return [instance.name for instance in gce.instances.list(request=request, retry=None)]


def test_sections_of_an_aggregated_list(gce: Google) -> None:
    gce.insert("vm-1")
    shown = aggregated(gce)
    assert shown["kind"] == "compute#instanceAggregatedList"
    assert sorted(shown["items"]) == sorted(
        f"zones/{zone}" for zone in gce.cloud.shelf("zones", "global")
    )
    here = shown["items"].pop(f"zones/{gce.zone}")
    assert [instance["name"] for instance in here["instances"]] == ["vm-1"]
    assert "warning" not in here
    for scope, section in shown["items"].items():
        assert section["warning"]["code"] == "NO_RESULTS_ON_PAGE"
        assert section["warning"]["data"] == [{"key": "scope", "value": scope}]


def test_what_is_out_of_reach_is_told(gce: Google) -> None:
    gce.insert("vm-1")
    gce.cloud.unreachable.add(f"zones/{gce.zone}")
    shown = aggregated(gce)
    assert shown["items"][f"zones/{gce.zone}"]["warning"]["code"] == "UNREACHABLE"
    assert "instances" not in shown["items"][f"zones/{gce.zone}"]
    (away,) = shown["unreachables"]
    assert away.endswith(f"/zones/{gce.zone}")
    assert refused(lambda: names(gce))[0] == refused(lambda: gce.get("vm-1"))[0] == 503
    zones = gce.client(compute_v1.ZonesClient)
    assert zones.get(project=gce.project, zone=gce.zone, retry=None).status == "DOWN"


@pytest.mark.parametrize("most", [1, 2, 3, 500])
def test_pages(gce: Google, most: int) -> None:
    for name in ("vm-1", "vm-2", "vm-3"):
        gce.insert(name)
    assert names(gce, max_results=most) == ["vm-1", "vm-2", "vm-3"]
    pages = gce.instances.aggregated_list(
        request=compute_v1.AggregatedListInstancesRequest(project=gce.project, max_results=most),
        retry=None,
    )
    found = [instance.name for _, part in pages for instance in part.instances]
    assert found == ["vm-1", "vm-2", "vm-3"]
    assert gce.cloud.count("instances.list") == -(-3 // most)


def test_a_page_that_a_filter_empties(gce: Google) -> None:
    for name in ("vm-1", "vm-2", "vm-3"):
        gce.insert(name, labels={"n": name[-1]})
    gce.cloud.sparse_pages = True
    first = aggregated(gce, maxResults=2, filter="labels.n=3")
    assert first["nextPageToken"]
    assert all("instances" not in section for section in first["items"].values())
    assert names(gce, max_results=2, filter="labels.n=3") == ["vm-3"]


@pytest.mark.parametrize(
    ("query", "word"), [({"maxResults": 501}, "500"), ({"pageToken": "x"}, "")]
)
def test_a_page_that_is_none(gce: Google, query: dict[str, Any], word: str) -> None:
    error = aggregated(gce, **query)["error"]
    assert (error["code"], word in error["message"]) == (400, True)


THING = {
    "name": "vm-1",
    "status": "RUNNING",
    "labels": {"a": "b", "vmrunner-role": "build"},
    "scheduling": {"preemptible": True},
    "sizeGb": "10",
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("labels.a=b", True),
        ("labels.a = b", True),
        ('labels.a="b"', True),
        ("labels.a=c", False),
        ("labels.none=b", False),
        ("labels.a:*", True),
        ("labels.none:*", False),
        ("labels.vmrunner-role:*", True),
        ("labels.a!=b", False),
        ("labels.a!=c", True),
        ("name=vm-*", True),
        ("labels.a=b AND labels.vmrunner-role=build", True),
        ("labels.a=b labels.vmrunner-role=other", False),
        ("(labels.a=b) (labels.vmrunner-role=build)", True),
        ("labels.a=c OR labels.a=b", True),
        ("labels.a=b AND (labels.a=c OR name=vm-1)", True),
        ("labels.a=c AND labels.a=b OR name=vm-1", False),  # OR binds closer than AND
        ("NOT labels.a=c", True),
        ("NOT (labels.a:*)", False),
        ("status = RUNNING", True),
        ("scheduling.preemptible = true", True),
        ("sizeGb > 9", True),
        ("sizeGb >= 11", False),
        ("name eq vm-[0-9]", True),
        ("name ne vm-[0-9]", False),
        ('(name eq "vm-.*")', True),
    ],
)
def test_a_filter(text: str, fits: bool) -> None:
    assert compiled(text)(THING) is fits


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("labels.a", 400),
        ("labels.a=", 400),
        ("(labels.a=b", 400),
        ("labels.a=b)", 400),
        ("=b", 400),
        ("labels.a=b AND", 400),
        ("name eq vm name=vm", 400),
        ("-labels.a=b", 501),  # nobody has written it: never a guess
        ("name=*vm", 501),
    ],
)
def test_no_filter(gce: Google, text: str, status: int) -> None:
    with pytest.raises(GceRefusal) as caught:
        compiled(text)
    assert caught.value.status == status
    assert aggregated(gce, filter=text)["error"]["code"] == status


def test_what_a_project_has(gce: Google) -> None:
    machine_types = gce.client(compute_v1.MachineTypesClient)
    kind = machine_types.get(
        project=gce.project, zone=gce.zone, machine_type="e2-standard-2", retry=None
    )
    assert (kind.guest_cpus, kind.memory_mb) == (2, 8192)
    where = {"project": gce.project}
    zones = list(gce.client(compute_v1.ZonesClient).list(**where))
    assert {zone.status for zone in zones} == {"UP"}
    regions = list(gce.client(compute_v1.RegionsClient).list(**where))
    assert {quota.metric for quota in regions[0].quotas} >= {"CPUS", "INSTANCES"}
    images = gce.client(compute_v1.ImagesClient)
    image = images.get_from_family(family="vmrunner", retry=None, **where)
    assert images.get(image=image.name, retry=None, **where).id == image.id
    assert [found.name for found in images.list(**where)] == [image.name]
    network = gce.client(compute_v1.NetworksClient).get(network="vmrunner", retry=None, **where)
    assert not network.auto_create_subnetworks
    subnetworks = gce.client(compute_v1.SubnetworksClient)
    subnetwork = subnetworks.get(region=gce.site.region, subnetwork="vmrunner", retry=None, **where)
    assert subnetwork.network == network.self_link
    rules = list(gce.client(compute_v1.FirewallsClient).list(**where))
    ours = [rule for rule in rules if rule.network == network.self_link]
    assert [list(rule.source_ranges) for rule in ours] == [["192.0.2.0/24"]]


def test_the_projects_own_metadata(gce: Google) -> None:
    projects = gce.client(compute_v1.ProjectsClient)
    assert not projects.get(project=gce.project, retry=None).common_instance_metadata.items
    gce.cloud.common_metadata["enable-oslogin"] = "TRUE"
    (item,) = projects.get(project=gce.project, retry=None).common_instance_metadata.items
    assert (item.key, item.value) == ("enable-oslogin", "TRUE")


def test_the_newest_image_of_a_family(gce: Google) -> None:
    gce.clock.advance(10)
    gce.cloud.image("vmrunner-2", family="vmrunner")
    gce.clock.advance(10)
    gce.cloud.image("vmrunner-3", family="vmrunner", deprecated={"state": "DEPRECATED"})
    images = gce.client(compute_v1.ImagesClient)
    found = images.get_from_family(project=gce.project, family="vmrunner", retry=None)
    assert found.name == "vmrunner-2"
    none = refused(lambda: images.get_from_family(project=gce.project, family="none", retry=None))
    assert none[:2] == (404, "notFound")
    gce.cloud.image("debian-13-v1", family="debian-13", project="debian-cloud")
    stock = images.get_from_family(project="debian-cloud", family="debian-13", retry=None)
    assert "projects/debian-cloud/" in stock.self_link


def _leftovers(gce: Google) -> dict[str, Callable[[], list[str]]]:
    where = {"project": gce.project}

    def of(kind: type[Any], attribute: str) -> list[str]:
        pages = gce.client(kind).aggregated_list(**where)
        return sorted(item.name for _, part in pages for item in getattr(part, attribute))

    return {
        "disks": lambda: of(compute_v1.DisksClient, "disks"),
        "addresses": lambda: of(compute_v1.AddressesClient, "addresses"),
        "snapshots": lambda: [
            snapshot.name for snapshot in gce.client(compute_v1.SnapshotsClient).list(**where)
        ],
    }


def test_what_was_left_behind(gce: Google) -> None:
    gce.cloud.disk(gce.zone, "d", labels={"a": "b"})
    gce.cloud.reserve(gce.site.region, "a", labels={"a": "b"})
    gce.cloud.reserve("", "everywhere")
    gce.cloud.snapshot("s", labels={"a": "b"})
    assert {kind: found() for kind, found in _leftovers(gce).items()} == {
        "disks": ["d"],
        "addresses": ["a", "everywhere"],
        "snapshots": ["s"],
    }
    snapshots = gce.client(compute_v1.SnapshotsClient)
    operation = snapshots.delete_unary(project=gce.project, snapshot="s", retry=None)
    done = gce.client(compute_v1.GlobalOperationsClient).wait(
        project=gce.project, operation=operation.name, retry=None
    )
    assert done.status.name == "DONE"
    everywhere = gce.client(compute_v1.GlobalAddressesClient)
    everywhere.delete_unary(project=gce.project, address="everywhere", retry=None)
    addresses = gce.client(compute_v1.AddressesClient)
    operation = addresses.delete_unary(
        project=gce.project, region=gce.site.region, address="a", retry=None
    )
    done = gce.client(compute_v1.RegionOperationsClient).wait(
        project=gce.project, region=gce.site.region, operation=operation.name, retry=None
    )
    assert done.status.name == "DONE"
    assert [kind for kind, found in _leftovers(gce).items() if found()] == ["disks"]


@pytest.mark.parametrize(
    "mask", ["items(name,disks(source)),nextPageToken", "items/name,items.disks.source"]
)
def test_fields_are_selected(gce: Google, mask: str) -> None:
    gce.insert("vm-1")
    gce.insert("vm-2")
    request = {"project": gce.project, "zone": gce.zone}
    header = [("x-goog-fieldmask", mask)]
    shown = gce.instances.list(request=request, metadata=header, retry=None)
    for item in shown:
        assert item.name
        assert item.disks[0].source
        assert not item.status
        assert not item.labels
        assert not item.disks[0].boot


def test_fields_of_an_aggregated_list(gce: Google) -> None:
    gce.insert("vm-1")
    shown = aggregated(gce, fields="items/*/instances(name)")
    assert shown["items"].pop(f"zones/{gce.zone}") == {"instances": [{"name": "vm-1"}]}
    assert not any(shown["items"].values())


@pytest.mark.parametrize(
    "mask", ["items(*(instances(nome)))", "items(name", "items,,kind", "items)"]
)
def test_no_such_fields(gce: Google, mask: str) -> None:
    assert aggregated(gce, fields=mask)["error"]["errors"][0]["reason"] == "invalidParameter"
