"""What the local GCE does as Google does where a client would like it otherwise: zones away,
host policies, disks, states of images."""

from __future__ import annotations

from functools import partial

import pytest
import requests
from google.cloud import compute_v1

from tests.support.gce import Google, refused
from tests.support.gce import gce as gce  # the fixture


def aggregated(gce: Google, **query: str) -> requests.Response:
    """Asked as whoever has no SDK would."""
    path = f"/compute/v1/projects/{gce.project}/aggregated/instances"
    return requests.get(gce.cloud.url + path, params=query, timeout=10)


def test_an_aggregated_list_omits_a_missing_zone_or_fails(gce: Google) -> None:
    away = f"zones/{gce.site.zones[1]}"
    gce.cloud.unreachable.add(away)
    document = aggregated(gce).json()
    assert document["items"][away]["warning"]["code"] == "UNREACHABLE"
    assert [unreachable.partition("/zones/")[2] for unreachable in document["unreachables"]] == [
        gce.site.zones[1]
    ]
    gce.cloud.partial_lists = False
    assert aggregated(gce).status_code == 503
    gce.cloud.unreachable.clear()
    assert aggregated(gce).status_code == 200


def test_a_parameter_that_is_gone_is_refused(gce: Google) -> None:
    assert aggregated(gce, returnPartialSuccess="true").status_code == 400
    assert "returnPartialSuccess" in gce.cloud.rejected[0]


@pytest.mark.parametrize(
    ("kind", "policy", "why"),
    [
        ("e2-standard-2", "TERMINATE", "e2 instances do not support onHostMaintenance=TERMINATE"),
        ("n2-standard-2", "MIGRATE", "do not support live migration"),
    ],
)
def test_not_every_machine_type_supports_each_maintenance_policy(
    gce: Google, kind: str, policy: str, why: str
) -> None:
    gce.cloud.immovable.add("n2-standard-2")
    where = f"zones/{gce.zone}/machineTypes/{kind}"
    options = {"machine_type": where, "scheduling": {"on_host_maintenance": policy}}
    status, _, message = refused(lambda: gce.insert("vm-1", **options))
    assert status == 400
    assert why in message
    gce.insert(
        "vm-2", **(options | {"machine_type": f"zones/{gce.zone}/machineTypes/c3-standard-4"})
    )
    assert len(gce.cloud.alive) == 1


def test_n4_takes_hyperdisk_alone_and_e2_none(gce: Google) -> None:
    for kind, disk in (("n4-standard-2", "pd-balanced"), ("e2-standard-2", "hyperdisk-balanced")):
        new = gce.boot_disk()
        new["initialize_params"]["disk_type"] = f"zones/{gce.zone}/diskTypes/{disk}"
        where = f"zones/{gce.zone}/machineTypes/{kind}"
        insert = partial(gce.insert, "vm-1", machine_type=where, disks=[new])
        status, _, message = refused(insert)
        assert (status, disk in message) == (400, True)
    gce.insert("vm-2", machine_type=f"zones/{gce.zone}/machineTypes/n4-standard-2")
    assert gce.cloud.disks[0]["type"].endswith("/hyperdisk-balanced")


def test_an_image_has_a_state_and_none_again(gce: Google) -> None:
    images = gce.client(compute_v1.ImagesClient)
    name = gce.site.image.rpartition("/")[2]
    for state in ("DEPRECATED", ""):
        query = {"state": state} if state else {}
        images.deprecate_unary(
            project=gce.project, image=name, deprecation_status_resource=query, retry=None
        )
        shown = images.get(project=gce.project, image=name, retry=None)
        assert shown.deprecated.state == state
    gce.cloud.faults.deny("images.deprecate")
    status, reason, message = refused(
        lambda: images.deprecate_unary(
            project=gce.project, image=name, deprecation_status_resource={}, retry=None
        )
    )
    assert (status, reason) == (403, "forbidden")
    assert "compute.images.deprecate" in message
