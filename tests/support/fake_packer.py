"""A `packer` for tests: it takes what the real one takes, says what that says, and makes at a local
endpoint what that would make. Nothing of vmrunner is in it.

FAKE_PACKER says what becomes of it: `make` an image; `fail` in a provisioner; `hang` until it is
told to stop, and then clean up; `deaf`: the same, but it dies at once and leaves all; `stuck`: it
hears nothing; `waits`: for its image, which is there without tags on EC2 and with them on Azure and
Compute Engine, until it is told to stop, and then does not take that away, as the plugins do not;
`leaves`: the same, but it dies at once; `init`: no plugin is to be had. FAKE_PACKER_LOG takes its
command lines and variables. With FAKE_PACKER_UNTAGGED what it makes carries no tags, as with
somebody else's template. FAKE_PACKER_AZURE is the endpoint in Azure's place.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODE = "FAKE_PACKER"
LOG = "FAKE_PACKER_LOG"
UNTAGGED = "FAKE_PACKER_UNTAGGED"
AZURE = "FAKE_PACKER_AZURE"


@pytest.fixture
def packer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packer:
    """It is on PATH."""
    place = tmp_path / "bin"
    place.mkdir()
    # Not above: the program, which is this file, runs where no package `tests` is.
    from tests.support.programs import INTERPRETER_LINE

    program = place / "packer"
    program.write_text(INTERPRETER_LINE + Path(__file__).read_text())
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    made = Packer(tmp_path / "packer.jsonl", monkeypatch)
    monkeypatch.setenv(LOG, str(made.log))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a builder that is killed leaves its directory
    return made


class Packer:
    """What it is to do, and what it was told."""

    def __init__(self, log: Path, environment: pytest.MonkeyPatch) -> None:
        self.log = log
        self._environment = environment

    def does(self, mode: str) -> None:
        self._environment.setenv(MODE, mode)

    @property
    def runs(self) -> list[dict[str, Any]]:
        return [noted for noted in self._noted if "argv" in noted]

    def received_signal(self, name: str) -> bool:
        """Did this signal reach one that is stuck?"""
        return any(noted.get("signal") == name for noted in self._noted)

    @property
    def waits(self) -> bool:
        """Does it wait for an image that is there by now?"""
        return self.log.exists() and any("waits" in noted for noted in self._noted)

    @property
    def _noted(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def variables(self) -> dict[str, Any]:
        """Of the last build."""
        found: dict[str, Any] = self.runs[-1]["variables"]
        return found


# --- the program ---------------------------------------------------------------------------------

SOURCE = ""
STOP = threading.Event()


def tell(*words: str, target: str = "") -> None:
    plain = [w.replace(",", "%!(PACKER_COMMA)").replace("\n", "\\n") for w in words]
    print(",".join([str(int(time.time())), target, *plain]), flush=True)


def say(text: str) -> None:
    tell("ui", "say", f"==> {SOURCE}: {text}")


def main() -> int:
    global SOURCE
    words = sys.argv[1:]
    mode = os.environ.get(MODE, "make")
    if words[0] == "init":
        note({"argv": words})
        if mode == "init":
            print("Error: Missing plugins", file=sys.stderr)
        return int(mode == "init")
    options = dict(w.lstrip("-").split("=", 1) for w in words if w.startswith("-") and "=" in w)
    variables = json.loads(Path(options["var-file"]).read_text())
    stage = Path(variables["stage_dir"])
    note(
        {
            "argv": words,
            "variables": variables,
            "pid": os.getpid(),
            "stage": sorted(str(p.relative_to(stage)) for p in stage.rglob("*") if p.is_file()),
            "user_data": Path(variables["user_data_file"]).read_text(),
        }
    )
    SOURCE = options["only"]
    heard = {"deaf": deaf, "leaves": deaf, "stuck": stuck}.get(mode, lambda *_: STOP.set())
    signal.signal(signal.SIGINT, heard)
    kinds = {"amazon-ebs": Ec2, "azure-arm": Azure, "googlecompute": Gce}
    return run(kinds[SOURCE.partition(".")[0]](variables), mode)


def deaf(*_: object) -> None:
    os._exit(1)


def stuck(*_: object) -> None:
    note({"signal": "SIGINT"})


def note(what: dict[str, Any]) -> None:
    with Path(os.environ[LOG]).open("a") as file:
        file.write(json.dumps(what) + "\n")


def run(cloud: Any, mode: str) -> int:
    undo: list[Callable[[], None]] = []
    artifact, error = "", ""
    try:
        cloud.builder(undo)
        say("Connected to SSH!")
        if mode in ("hang", "deaf", "stuck"):
            say("Waiting for ever")
            while not STOP.wait(0.02):
                pass
        if STOP.is_set():
            tell("ui", "error", "Cancelling build after receiving interrupt")
            error = "Build was cancelled."
        elif mode == "fail":
            tell("ui", "error", f"==> {SOURCE}: E: Unable to locate package nosuch, sorry")
            error = "Script exited with non-zero exit status: 100. Allowed exit codes are: [0]"
        else:
            cloud.capture()
            if mode in ("waits", "leaves"):
                say("Waiting for it to become ready...")
                note({"waits": True})
                while not STOP.wait(0.02):
                    pass
                error = "Build was cancelled."
            else:
                try:
                    artifact = cloud.image()
                except Died:
                    error = "unexpected EOF"
    finally:
        say("Cleaning up")
        for step in reversed(undo):
            step()
    if error:
        tell("error", error, target=SOURCE)
        tell("ui", "error", "\n==> Some builds didn't complete successfully and had errors:")
        return 1
    tell("artifact-count", "1", target=SOURCE)
    tell("artifact", "0", "builder-id", "x", target=SOURCE)
    tell("artifact", "0", "id", artifact, target=SOURCE)
    tell("artifact", "0", "end", target=SOURCE)
    return 0


class Died(Exception):
    """A plugin does. Packer knows no more than that."""


class Ec2:
    def __init__(self, variables: dict[str, Any]) -> None:
        import boto3

        self.variables = variables
        self.region = variables["aws_region"]
        self.api = boto3.client("ec2", region_name=self.region)
        self.vm = self.ami = ""

    def _tags(self, *kinds: str) -> dict[str, Any]:
        run_tags = {} if os.environ.get(UNTAGGED) else self.variables["run_tags"]
        tags = [{"Key": k, "Value": v} for k, v in ({"Name": "Packer Builder"} | run_tags).items()]
        return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds]}

    def builder(self, undo: list[Callable[[], None]]) -> None:
        name = f"packer_{int(time.time()):08x}-{str(uuid.uuid4())[9:]}"
        say(f"Creating temporary keypair: {name}")
        self.api.create_key_pair(KeyName=name, KeyType="ed25519", **self._tags("key-pair"))
        undo.append(lambda: self.api.delete_key_pair(KeyName=name))
        group = self.variables.get("aws_security_group_id")
        if not group:
            say(f"Creating temporary security group for this instance: {name}")
            vpc = self.api.describe_vpcs()["Vpcs"][0]["VpcId"]
            group = self.api.create_security_group(
                GroupName=name, Description="Temporary group for Packer", VpcId=vpc,
                **self._tags("security-group"),
            )["GroupId"]  # fmt: skip
            undo.append(lambda: self.api.delete_security_group(GroupId=group))
        say("Launching a source AWS instance...")
        base = self.api.describe_images(Owners=["self"])["Images"][0]["ImageId"]
        subnet = self.variables.get("aws_subnet_id")
        placed = {"SubnetId": subnet} if subnet else {}
        (made,) = self.api.run_instances(
            MinCount=1, MaxCount=1, ImageId=base, KeyName=name, SecurityGroupIds=[group],
            InstanceType=self.variables["aws_instance_type"], **placed,
            UserData=Path(self.variables["user_data_file"]).read_text(),
            InstanceInitiatedShutdownBehavior="terminate", **self._tags("instance", "volume"),
        )["Instances"]  # fmt: skip
        self.vm = made["InstanceId"]
        undo.append(lambda: self.api.terminate_instances(InstanceIds=[self.vm]))

    def capture(self) -> None:
        say("Creating the AMI")
        made = self.api.create_image(InstanceId=self.vm, Name=self.variables["image_name"])
        self.ami = made["ImageId"]

    def image(self) -> str:
        image = self.ami
        (found,) = self.api.describe_images(ImageIds=[image])["Images"]
        snapshots = [m["Ebs"]["SnapshotId"] for m in found["BlockDeviceMappings"]]
        tags = [{"Key": k, "Value": v} for k, v in self.variables["image_tags"].items()]
        self.api.create_tags(Resources=[image, *snapshots], Tags=tags)
        return f"{self.region}:{image}"


class Azure:
    """What its plugin's template deploys has no `deleteOption`: Packer deletes part by part."""

    def __init__(self, variables: dict[str, Any]) -> None:
        from azure.core.pipeline.policies import SansIOHTTPPolicy
        from azure.mgmt.compute import ComputeManagementClient
        from azure.mgmt.network import NetworkManagementClient

        self.variables = variables
        shown: Any = SansIOHTTPPolicy()
        to = {"base_url": os.environ[AZURE], "authentication_policy": shown, "polling_interval": 0}
        account = variables["azure_subscription"]
        self.compute = ComputeManagementClient(shown, account, **to)
        self.network = NetworkManagementClient(shown, account, **to)
        self.group = variables["azure_resource_group"]
        untagged = bool(os.environ.get(UNTAGGED))
        self.name = f"pkrvm{uuid.uuid4().hex[:10]}" if untagged else variables["azure_builder_name"]
        tags = {} if untagged else {**variables["run_tags"], **variables["image_tags"]}
        self.common = {"location": "westeurope", "tags": tags}

    def _put(self, family: Any, name: str, what: dict[str, Any], undo: list[Any]) -> str:
        made = family.begin_create_or_update(self.group, name, {**self.common, **what}).result()
        undo.append(lambda: family.begin_delete(self.group, name).result())
        return str(made.id)

    def builder(self, undo: list[Callable[[], None]]) -> None:
        variables = self.variables
        gallery = variables.get("azure_gallery")
        self.version = gallery and (
            self.group, gallery,
            variables["azure_gallery_image"], variables["azure_gallery_version"],
        )  # fmt: skip
        if self.version:  # which the plugin looks for before it makes anything
            self.compute.gallery_images.get(*self.version[:3])
            found = self.compute.gallery_image_versions.list_by_gallery_image(*self.version[:3])
            assert self.version[3] not in [version.name for version in found], "it is there already"
        say("Deploying deployment template ...")
        network = (
            f"/subscriptions/{variables['azure_subscription']}/resourceGroups"
            f"/{variables['azure_network_resource_group']}/providers/Microsoft.Network"
            f"/virtualNetworks/{variables['azure_virtual_network']}/subnets/{variables['azure_subnet']}"
        )
        address: dict[str, Any] = {"subnet": {"id": network}}
        if not variables["azure_internal_address"]:
            static = {"publicIPAllocationMethod": "Static"}
            public = {"sku": {"name": "Standard"}, "properties": static}
            addresses = self.network.public_ip_addresses
            made = self._put(addresses, f"pkrip{uuid.uuid4().hex[:10]}", public, undo)
            address["publicIPAddress"] = {"id": made}
        interface = {"properties": {"ipConfigurations": [{"name": "ip", "properties": address}]}}
        nic = self._put(self.network.network_interfaces, self.name, interface, undo)
        undo.insert(0, lambda: self.compute.disks.begin_delete(self.group, self.name).result())
        key = {
            "path": "/home/packer/.ssh/authorized_keys",
            "keyData": "ssh-rsa AAAAB3NzaC1yc2EAAAAD",
        }
        base = {"publisher": "Debian", "offer": "debian-13", "sku": "13-gen2", "version": "latest"}
        user_data = Path(variables["user_data_file"]).read_bytes()
        controller = variables["azure_disk_controller"]
        machine = {
            "hardwareProfile": {"vmSize": variables["azure_vm_size"]},
            "storageProfile": {
                "imageReference": base,
                "osDisk": {"name": self.name, "createOption": "FromImage"},
            }
            | ({"diskControllerType": controller} if controller else {}),
            "osProfile": {
                "computerName": self.name,
                "adminUsername": "packer",
                "customData": base64.b64encode(user_data).decode(),
                "linuxConfiguration": {
                    "disablePasswordAuthentication": True,
                    "ssh": {"publicKeys": [key]},
                },
            },
            "networkProfile": {"networkInterfaces": [{"id": nic}]},
        }
        self.vm = self._put(self.compute.virtual_machines, self.name, {"properties": machine}, undo)

    def capture(self) -> None:
        say("Powering off machine ...")
        self.compute.virtual_machines.begin_deallocate(self.group, self.name).result()
        say("Generalizing machine ...")
        if self.version:
            self._publish()
            return
        say("Capturing image ...")
        source = {"properties": {"sourceVirtualMachine": {"id": self.vm}}}
        self.made = self._put(self.compute.images, self.variables["image_name"], source, [])

    def _publish(self) -> None:
        """The plugin's step for a gallery without a managed image: of the builder itself."""
        say("Publishing to Shared Image Gallery ...")
        replicas = self.variables["azure_gallery_replicas"]
        version = {
            **self.common,
            "properties": {
                "storageProfile": {"source": {"virtualMachineId": self.vm}},
                "publishingProfile": {
                    "targetRegions": [{"name": "westeurope", "regionalReplicaCount": replicas}],
                    "excludeFromLatest": False,
                    "replicaCount": replicas,
                    "replicationMode": "Full",
                    "storageAccountType": "Standard_LRS",
                },
            },
        }
        made = self.compute.gallery_image_versions.begin_create_or_update(*self.version, version)
        self.made = str(made.result().id)

    def image(self) -> str:
        return self.made


class Gce:
    def __init__(self, variables: dict[str, Any]) -> None:
        from google.cloud import compute_v1 as api
        from google.oauth2.credentials import Credentials

        self.variables = variables
        options = {"api_endpoint": variables["gce_endpoint"].removesuffix("/compute/v1/")}
        shown = Credentials(variables["gce_access_token"])
        made = {"credentials": shown, "client_options": options}
        self.vms = api.InstancesClient(**made)
        self.disks = api.DisksClient(**made)
        self.images = api.ImagesClient(**made)
        self.where = {"project": variables["gce_project"], "zone": variables["gce_zone"]}

    def builder(self, undo: list[Callable[[], None]]) -> None:
        variables, zone = self.variables, self.where["zone"]
        say("Creating instance...")
        untagged = bool(os.environ.get(UNTAGGED))
        name = f"packer-{uuid.uuid4()}" if untagged else variables["gce_instance_name"]
        disk = name if untagged else variables["gce_disk_name"]
        labels = {} if untagged else variables["run_tags"]
        base = f"projects/{self.where['project']}/global/images/family/vmrunner"
        kind = f"zones/{zone}/diskTypes/{variables['gce_disk_type']}"
        new = {"disk_name": disk, "source_image": base, "disk_type": kind}
        nic = {
            k: variables[f"gce_{k}"] for k in ("network", "subnetwork") if variables.get(f"gce_{k}")
        }
        self.vms.insert_unary(
            **self.where,
            instance_resource={
                "name": name,
                "labels": labels,
                "machine_type": f"zones/{zone}/machineTypes/{variables['gce_machine_type']}",
                "disks": [{"boot": True, "auto_delete": False, "initialize_params": new}],
                "network_interfaces": [nic],
                "scheduling": {
                    "max_run_duration": {"seconds": variables["max_run_seconds"]},
                    "instance_termination_action": "DELETE",
                    "automatic_restart": False,
                },
            },
        )
        self.name, self.disk = name, disk
        undo.append(lambda: self.disks.delete_unary(**self.where, disk=disk))
        undo.append(self._teardown)

    def _teardown(self) -> None:
        if self.name:
            self.vms.delete_unary(**self.where, instance=self.name)
            self.name = ""

    def capture(self) -> None:
        say("Deleting instance...")
        self._teardown()
        say("Creating image...")
        project, zone = self.where["project"], self.where["zone"]
        self.images.insert_unary(
            project=project,
            image_resource={
                "name": self.variables["image_name"],
                "family": self.variables["gce_image_family"],
                "labels": self.variables["image_tags"],
                "source_disk": f"projects/{project}/zones/{zone}/disks/{self.disk}",
            },
        )

    def image(self) -> str:
        """The plugin sets an image's state whatever that is to be, and dies when it may not."""
        name = str(self.variables["image_name"])
        try:
            self.images.deprecate_unary(
                project=self.where["project"], image=name, deprecation_status_resource={}
            )
        except Exception as error:
            raise Died from error
        return name


if __name__ == "__main__":
    sys.exit(main())
