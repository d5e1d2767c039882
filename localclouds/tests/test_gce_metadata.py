"""The metadata server of a local GCE's guests, over HTTP, without a VM behind it."""

from __future__ import annotations

import base64
import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest
from vmrunner_localclouds.gce.metadata import GceMetadata
from vmrunner_localclouds.vms.metadata import MetadataServer

from tests.support.gce import Google
from tests.support.gce import gce as gce  # the fixture

V1: Final = "/computeMetadata/v1/"
USER_DATA: Final = base64.b64encode(os.urandom(4096)).decode()
ITEMS: Final = {
    "user-data": USER_DATA,
    "user-data-encoding": "base64",
    "block-project-ssh-keys": "TRUE",
}


class Guest:
    """An instance, and what its VM would see."""

    def __init__(self, gce: Google) -> None:
        gce.cloud.common_metadata["ssh-keys"] = "somebody:ssh-ed25519 AAAA"
        items = [{"key": key, "value": value} for key, value in ITEMS.items()]
        gce.insert("vm-1", metadata={"items": items})
        self.machine = gce.machine
        self.server = MetadataServer(GceMetadata(self.machine))

    def answer(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        ask = {"Metadata-Flavor": "Google"} if headers is None else headers
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port)) as connection:
            connection.request(method, path, headers=ask)
            answer = connection.getresponse()
            return answer, answer.read()

    def text(self, path: str) -> str:
        answer, body = self.answer(V1 + path)
        assert (answer.status, answer.headers["Metadata-Flavor"]) == (200, "Google")
        return body.decode()

    def json(self, path: str) -> Any:
        return json.loads(self.text(path))

    def status(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> int:
        return self.answer(path, method, headers)[0].status


@pytest.fixture
def guest(gce: Google) -> Iterator[Guest]:
    guest = Guest(gce)
    yield guest
    guest.server.close()


def test_what_cloud_init_asks_for(guest: Guest, gce: Google) -> None:
    assert guest.text("instance/id") == guest.machine.id
    assert guest.text("instance/zone") == f"projects/{gce.cloud.number}/zones/{gce.zone}"
    assert guest.text("instance/hostname") == f"vm-1.{gce.zone}.c.{gce.project}.internal"
    assert guest.json("instance/attributes/?recursive=True") == ITEMS
    assert guest.json("project/attributes/?recursive=True") == {
        "ssh-keys": "somebody:ssh-ed25519 AAAA"
    }


def test_only_who_means_it_is_answered(guest: Guest) -> None:
    path = f"{V1}instance/id"
    assert guest.status(path, headers={}) == 403
    assert guest.status(path, headers={"Metadata-Flavor": "Amazon"}) == 403
    proxied = {"Metadata-Flavor": "Google", "X-Forwarded-For": "192.0.2.1"}
    assert guest.status(path, headers=proxied) == 403
    assert guest.status("/", headers={}) == 200  # by its flavor, a program tells where it is
    assert guest.answer("/", headers={})[0].headers["Metadata-Flavor"] == "Google"
    assert guest.status(path, "PUT") == 405


def test_a_directory_is_a_list_of_names(guest: Guest) -> None:
    assert guest.text("instance/attributes/").split("\n") == [*sorted(ITEMS), ""]
    assert guest.text("") == "instance/\nproject/\n"
    answer, _ = guest.answer(f"{V1}instance/attributes")
    assert (answer.status, answer.headers["Location"]) == (301, f"{V1}instance/attributes/")


def test_the_whole_tree_as_json_and_as_text(guest: Guest, gce: Google) -> None:
    found = guest.json("?recursive=true&alt=json")
    assert found["project"]["projectId"] == gce.project
    assert found["project"]["attributes"]["ssh-keys"]  # the user's own names stay as they are
    instance = found["instance"]
    assert instance["id"] == int(guest.machine.id)
    assert instance["machineType"].endswith("/machineTypes/e2-standard-2")
    assert instance["image"] == gce.site.image
    (nic,) = instance["networkInterfaces"]
    assert nic["ip"] == guest.machine.address
    assert nic["accessConfigs"][0]["type"] == "ONE_TO_ONE_NAT"
    assert instance["serviceAccounts"] == {}
    lines = guest.text("instance/?recursive=true&alt=text").split("\n")
    assert f"name {guest.machine.name}" in lines
    assert f"network-interfaces/0/ip {guest.machine.address}" in lines
    assert guest.json("instance/name?alt=json") == "vm-1"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("instance/none", 404),
        ("instance/id/more", 404),
        ("instance/service-accounts/default/token", 404),
        ("?recursive=true&alt=yaml", 400),
        ("instance/tags?wait_for_change=true", 501),
    ],
)
def test_what_is_not_there(guest: Guest, path: str, status: int) -> None:
    assert guest.status(V1 + path) == status


def test_it_says_what_is_true_now(guest: Guest, gce: Google) -> None:
    guest.machine.shown["metadata"]["items"] = [{"key": "a", "value": "b"}]
    assert guest.json("instance/attributes/?recursive=true") == {"a": "b"}
