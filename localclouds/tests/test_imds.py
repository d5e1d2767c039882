"""The metadata service of a local EC2's guests, over HTTP, without a VM behind it."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import boto3
import pytest
from vmrunner_localclouds.ec2.metadata import Ec2Metadata
from vmrunner_localclouds.vms.metadata import MetadataServer

from tests.support.ec2 import REGION, Amazon
from tests.support.ec2 import virtual_aws as virtual_aws  # the fixture

TOKEN: Final = "X-aws-ec2-metadata-token"
TTL: Final = f"{TOKEN}-ttl-seconds"
USER_DATA: Final = b"#cloud-config\n\x00\xff\r\n" + os.urandom(4096)


class Guest:
    """An instance, and what its VM would see."""

    def __init__(self, aws: Amazon, **more: Any) -> None:
        options: dict[str, Any] = {
            "ImageId": aws.site.image,
            "InstanceType": "m7i.large",
            "MinCount": 1,
            "MaxCount": 1,
            "UserData": USER_DATA,
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": aws.site.subnets[0],
                    "Groups": [aws.site.security_group],
                    "AssociatePublicIpAddress": True,
                }
            ],
        }
        self.client = boto3.client("ec2", endpoint_url=aws.cloud.url, region_name=REGION)
        (self.item,) = self.client.run_instances(**(options | more))["Instances"]
        self.machine = aws.cloud.by_id[self.item["InstanceId"]]
        self.server = MetadataServer(Ec2Metadata(self.machine))

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port)) as connection:
            connection.request(
                method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()

    def token(self, ttl: str = "60") -> str:
        status, body = self.ask("/latest/api/token", "PUT", **{TTL: ttl})
        assert status == 200
        return body.decode()

    def read(self, path: str) -> bytes:
        status, body = self.ask(path, **{TOKEN: self.token()})
        assert status == 200, (path, status)
        return body


@pytest.fixture
def guest(aws: Amazon) -> Iterator[Guest]:
    guest = Guest(aws)
    yield guest
    guest.server.close()


def test_without_a_token_of_this_guest_nothing_is_told(aws: Amazon, guest: Guest) -> None:
    other = Guest(aws)
    paths = ("/", "/latest/user-data", "/latest/meta-data/instance-id", "/nothing")
    for path in paths:
        assert guest.ask(path)[0] == 401
        assert guest.ask(path, **{TOKEN: "made-up"})[0] == 401
        assert guest.ask(path, **{TOKEN: other.token()})[0] == 401
    old = guest.token("10")
    assert guest.ask("/latest/user-data", **{TOKEN: old})[0] == 200
    aws.clock.advance(11)
    assert guest.ask("/latest/user-data", **{TOKEN: old})[0] == 401
    other.server.close()


def test_a_token_is_had_by_put_with_a_valid_life(guest: Guest) -> None:
    for ttl in ("0", "-1", "21601", "soon", ""):
        assert guest.ask("/latest/api/token", "PUT", **{TTL: ttl})[0] == 400
    assert guest.ask("/latest/api/token", "PUT")[0] == 400
    assert guest.ask("/latest/api/token", **{TTL: "60"})[0] == 405
    proxied = {TTL: "60", "X-Forwarded-For": "192.0.2.1"}
    assert guest.ask("/latest/api/token", "PUT", **proxied)[0] == 403
    for method in ("PUT", "POST", "DELETE"):
        assert guest.ask("/latest/user-data", method, **{TOKEN: guest.token()})[0] == 405


def test_optional_tokens_are_not_needed_but_a_wrong_one_fails(aws: Amazon) -> None:
    guest = Guest(aws, MetadataOptions={"HttpTokens": "optional"})
    assert guest.ask("/latest/user-data") == (200, USER_DATA)
    assert guest.ask("/latest/user-data", **{TOKEN: "made-up"})[0] == 401
    guest.server.close()


def test_the_user_data_is_what_was_sent_byte_by_byte(aws: Amazon, guest: Guest) -> None:
    assert guest.read("/latest/user-data") == USER_DATA
    assert guest.read("/2018-09-24/user-data") == USER_DATA
    other = Guest(aws, UserData=b"another's")
    assert other.read("/latest/user-data") == b"another's"
    assert guest.read("/latest/user-data") == USER_DATA
    none = Guest(aws, UserData=b"")
    assert none.ask("/latest/user-data", **{TOKEN: none.token()})[0] == 404
    for made in (other, none):
        made.server.close()


def test_every_listed_name_reads_as_the_api_says(guest: Guest) -> None:
    def walk(path: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in guest.read(path).decode().split("\n"):
            if name.endswith("/"):
                found |= walk(path + name)
            else:
                found[path + name] = guest.read(path + name).decode()
        return found

    top = "/2021-03-23/meta-data/"
    values = {path.removeprefix(top): text for path, text in walk(top).items()}
    assert values["instance-id"] == guest.item["InstanceId"]
    assert values["ami-id"] == guest.item["ImageId"]
    assert values["local-ipv4"] == guest.item["PrivateIpAddress"]
    assert values["public-ipv4"] == guest.item["PublicIpAddress"]
    assert values["placement/availability-zone"] == guest.item["Placement"]["AvailabilityZone"]
    assert values["placement/region"] == REGION
    (nic,) = guest.item["NetworkInterfaces"]
    assert values["mac"] == nic["MacAddress"]
    assert (
        values[f"network/interfaces/macs/{nic['MacAddress']}/interface-id"]
        == nic["NetworkInterfaceId"]
    )
    document = json.loads(guest.read("/latest/dynamic/instance-identity/document"))
    assert document["instanceId"] == guest.item["InstanceId"]
    assert (document["region"], document["imageId"]) == (REGION, guest.item["ImageId"])
    assert "latest" in guest.read("/").decode().split("\n")


@pytest.mark.parametrize(
    "path",
    [
        "/newest/meta-data/",
        "/latest/meta-data/nothing",
        "/latest/meta-data/instance-id/more",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/dynamic/instance-identity/pkcs7",
        "/latest/../latest/user-data",
        "/computeMetadata/v1/",
    ],
)
def test_what_is_not_there_is_not_found(guest: Guest, path: str) -> None:
    assert guest.ask(path, **{TOKEN: guest.token()})[0] == 404


def test_switched_off_from_outside_it_answers_nothing_from_that_moment(guest: Guest) -> None:
    token = guest.token()
    with closing(http.client.HTTPConnection("127.0.0.1", guest.server.port)) as connection:
        connection.request("GET", "/latest/user-data", headers={TOKEN: token})
        assert connection.getresponse().read() == USER_DATA
        guest.client.modify_instance_metadata_options(
            InstanceId=guest.item["InstanceId"], HttpEndpoint="disabled"
        )
        connection.request("GET", "/latest/user-data", headers={TOKEN: token})
        answer = connection.getresponse()
        assert (answer.status, USER_DATA in answer.read()) == (403, False)  # on the same connection
    for path in ("/", "/latest/user-data", "/latest/api/token", "/nothing"):
        assert guest.ask(path, **{TOKEN: token})[0] == 403
    assert guest.ask("/latest/api/token", "PUT", **{TTL: "60"})[0] == 403


def test_a_body_without_end_is_not_read(guest: Guest) -> None:
    huge = {TTL: "60", "Content-Length": str(2**40)}
    assert guest.ask("/latest/api/token", "PUT", **huge)[0] == 413
