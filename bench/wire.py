"""The fake cloud's listing as EC2 sends it: XML, read by botocore as a driver of EC2 has to.

The fake hands out what it has in memory, at a microsecond a thing. A cloud's listing costs what
its parsing costs, so that is what a sweep must be compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.parsers import create_parser

from vmrunner.model import Kind, Page, Power, Ref, Resource, Scope
from vmrunner.providers.fake import Call, FakeProvider

_HEAD = (
    '<{0}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>8f7724cf</requestId>'
)
_TAG = "<item><key>{}</key><value>{}</value></item>"
_VM = """<item><reservationId>r-{id}</reservationId><ownerId>123456789012</ownerId><groupSet/>
<instancesSet><item><instanceId>{id}</instanceId><imageId>ami-0abcdef1234567890</imageId>
<instanceState><code>16</code><name>running</name></instanceState>
<privateDnsName>ip-10-0-0-12.ec2.internal</privateDnsName><dnsName/><reason/>
<amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>m7i.large</instanceType>
<launchTime>{time}</launchTime><placement><availabilityZone>{place}</availabilityZone><groupName/>
<tenancy>default</tenancy></placement><monitoring><state>disabled</state></monitoring>
<subnetId>subnet-0123</subnetId><vpcId>vpc-0123</vpcId><privateIpAddress>10.0.0.12</privateIpAddress>
<sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-0123</groupId>
<groupName>builds</groupName></item></groupSet><architecture>x86_64</architecture>
<rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName>
<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-{id}</volumeId>
<status>attached</status><attachTime>{time}</attachTime>
<deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>
<virtualizationType>hvm</virtualizationType><clientToken>{id}</clientToken>
<tagSet>{tags}</tagSet><hypervisor>xen</hypervisor><networkInterfaceSet><item>
<networkInterfaceId>eni-{id}</networkInterfaceId><subnetId>subnet-0123</subnetId>
<vpcId>vpc-0123</vpcId><description/><ownerId>123456789012</ownerId><status>in-use</status>
<macAddress>02:00:00:00:00:01</macAddress><privateIpAddress>10.0.0.12</privateIpAddress>
<sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-0123</groupId>
<groupName>builds</groupName></item></groupSet><attachment><attachmentId>eni-attach-0</attachmentId>
<deviceIndex>0</deviceIndex><status>attached</status><attachTime>{time}</attachTime>
<deleteOnTermination>true</deleteOnTermination></attachment><privateIpAddressesSet><item>
<privateIpAddress>10.0.0.12</privateIpAddress><primary>true</primary></item>
</privateIpAddressesSet></item></networkInterfaceSet><ebsOptimized>true</ebsOptimized>
<enaSupport>true</enaSupport><cpuOptions><coreCount>1</coreCount><threadsPerCore>2</threadsPerCore>
</cpuOptions><metadataOptions><state>applied</state><httpTokens>required</httpTokens>
<httpEndpoint>disabled</httpEndpoint></metadataOptions></item></instancesSet></item>"""
_DISK = """<item><volumeId>{id}</volumeId><size>20</size><snapshotId>snap-0123</snapshotId>
<availabilityZone>{place}</availabilityZone><status>in-use</status><createTime>{time}</createTime>
<attachmentSet><item><volumeId>{id}</volumeId><instanceId>{parent}</instanceId>
<device>/dev/xvda</device><status>attached</status><attachTime>{time}</attachTime>
<deleteOnTermination>true</deleteOnTermination></item></attachmentSet><tagSet>{tags}</tagSet>
<volumeType>gp3</volumeType><iops>3000</iops><encrypted>true</encrypted></item>"""

_EC2 = botocore.session.get_session().get_service_model("ec2")
_SHAPES = {
    Kind.INSTANCE: ("DescribeInstances", "reservationSet"),
    Kind.DISK: ("DescribeVolumes", "volumeSet"),
}
_TIME = "2027-01-15T08:00:00.000Z"


class WireProvider(FakeProvider):
    """The fake's listing as it was when `freeze` was called; all else is the fake's own."""

    _bodies: list[tuple[Scope, Kind, bytes, bool]]

    def freeze(self) -> None:
        """Write down what the cloud would answer."""
        self._bodies = [(p.scope, p.kind, _body(p), p.more) for p in FakeProvider.sweep(self)]

    def sweep(self) -> Iterator[Page]:
        parser = create_parser("ec2")
        for scope, kind, body, more in self._bodies:
            self.cloud.plan(Call("sweep", self.name, scope, kind.value))
            shape = _EC2.operation_model(_SHAPES[kind][0]).output_shape
            answer = parser.parse({"status_code": 200, "headers": {}, "body": body}, shape)
            read = _vms if kind is Kind.INSTANCE else _disks
            resources = tuple(read(scope, answer))
            yield Page(scope=scope, kind=kind, resources=resources, time=self.now(), more=more)


def _body(page: Page) -> bytes:
    name, many = _SHAPES[page.kind]
    form = _VM if page.kind is Kind.INSTANCE else _DISK
    items = "".join(
        form.format(
            id=r.ref.id,
            place=r.ref.scope.place,
            parent=r.parent.id if r.parent else "",
            time=_TIME,
            tags="".join(_TAG.format(*tag) for tag in r.tags.items()),
        )
        for r in page.resources
    )
    return f"{_HEAD.format(name)}<{many}>{items}</{many}></{name}Response>".encode()


def _vms(scope: Scope, answer: dict[str, Any]) -> Iterator[Resource]:
    for reservation in answer["Reservations"]:
        for vm in reservation["Instances"]:
            yield Resource(
                ref=Ref(scope, Kind.INSTANCE, vm["InstanceId"]),
                power=Power(vm["State"]["Name"]),
                created_at=vm["LaunchTime"].timestamp(),
                tags={tag["Key"]: tag["Value"] for tag in vm["Tags"]},
            )


def _disks(scope: Scope, answer: dict[str, Any]) -> Iterator[Resource]:
    for disk in answer["Volumes"]:
        (attached,) = disk["Attachments"]
        yield Resource(
            ref=Ref(scope, Kind.DISK, disk["VolumeId"]),
            power=Power.RUNNING,
            created_at=disk["CreateTime"].timestamp(),
            tags={tag["Key"]: tag["Value"] for tag in disk["Tags"]},
            parent=Ref(scope, Kind.INSTANCE, attached["InstanceId"]),
        )
