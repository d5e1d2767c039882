"""Packer's templates held against what their plugins know and what a builder must be. They are
parsed, not evaluated: Packer itself is asked where there is one (test_packer_templates.py)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import hcl2

ROOT: Final = Path(__file__).parents[2]
PACKER: Final = ROOT / "packer"
SOURCES: Final = ("amazon-ebs", "azure-arm", "googlecompute", "qemu")

#: What `vmrunner image build --provider` passes in its -var-file.
PASSED: Final = frozenset(
    """
    base image_name recipe_hash created stage_dir run_tags image_tags user_data_file registry_mirror
    address_pool userns
    aws_region aws_subnet_id aws_security_group_id aws_instance_type aws_profile
    azure_subscription azure_resource_group azure_vm_size azure_virtual_network azure_subnet
    azure_network_resource_group azure_internal_address azure_spot azure_builder_name
    azure_disk_controller azure_gallery azure_gallery_image azure_gallery_version
    azure_gallery_replicas
    gce_project gce_zone gce_machine_type gce_network gce_subnetwork gce_instance_name gce_disk_name
    gce_image_family gce_disk_type gce_endpoint gce_access_token max_run_seconds qemu_accelerator
    qemu_output_dir disk_gib
    """.split()  # noqa: SIM905 - words are read more easily than quotes
)

#: Source, option, value, why.
REQUIRED: Final[tuple[tuple[str, str, Any, str], ...]] = (
    ("amazon-ebs", "shutdown_behavior", "terminate", "off is gone, if Packer died too"),
    ("amazon-ebs", "run_tags", "${var.run_tags}", "nothing is born untagged"),
    ("amazon-ebs", "run_volume_tags", "${var.run_tags}", "nor is its disk"),
    ("amazon-ebs", "skip_ami_run_tags", True, "a builder's deadline is not its image's"),
    ("amazon-ebs", "tags", "${var.image_tags}", "what `image gc` goes by"),
    ("amazon-ebs", "snapshot_tags", "${var.image_tags}", "the snapshot is the image's"),
    ("amazon-ebs", "user_data_file", "${var.user_data_file}", "the guest's own deadline"),
    ("amazon-ebs", "metadata_options.http_tokens", "required", "IMDSv2"),
    ("amazon-ebs", "metadata_options.http_put_response_hop_limit", 1, "not for containers"),
    ("amazon-ebs", "launch_block_device_mappings.delete_on_termination", True, "no disk stays"),
    ("amazon-ebs", "imds_support", "v2.0", "VMs of the AMI ask for session tokens too"),
    ("amazon-ebs", "ena_support", True, "types of today have no other network"),
    ("amazon-ebs", "sriov_support", True, "nor older ones"),
    ("amazon-ebs", "temporary_key_pair_type", "ed25519", "RSA with SHA-1 is refused by bases"),
    ("amazon-ebs", "temporary_security_group_source_public_ip", True, "not 0.0.0.0/0"),
    ("amazon-ebs", "ssh_disable_agent_forwarding", True, "the user's keys stay here"),
    ("amazon-ebs", "source_ami_filter.owners", ["${local.base.aws_owner}"], "the vendor's own"),
    ("amazon-ebs", "source_ami_filter.most_recent", True, "with its security updates"),
    ("azure-arm", "os_type", "Linux", "the plugin's default is to guess it"),
    ("azure-arm", "azure_tags", "${merge(var.run_tags, var.image_tags)}", "nothing is untagged"),
    ("azure-arm", "build_resource_group_name", "${var.azure_resource_group}", "as guard and sweep"),
    (
        "azure-arm",
        "managed_image_resource_group_name",
        "${var.azure_gallery == null ? var.azure_resource_group : null}",
        "as builds, and no second image beside a gallery's",
    ),
    (
        "azure-arm",
        "managed_image_name",
        "${var.azure_gallery == null ? var.image_name : null}",
        "its row's name",
    ),
    (
        "azure-arm",
        "shared_image_gallery_destination.resource_group",
        "${var.azure_resource_group}",
        "as sweep and gc",
    ),
    (
        "azure-arm",
        "shared_image_gallery_destination.image_version",
        "${var.azure_gallery_version}",
        "its row's name, as a number",
    ),
    ("azure-arm", "temp_compute_name", "${var.azure_builder_name}", "its row's name"),
    ("azure-arm", "temp_os_disk_name", "${var.azure_builder_name}", "it may have no tags"),
    ("azure-arm", "custom_data_file", "${var.user_data_file}", "the guest's own deadline"),
    (
        "azure-arm",
        "virtual_network_name",
        "${var.azure_virtual_network}",
        "not one for all to reach",
    ),
    ("azure-arm", "ssh_disable_agent_forwarding", True, "the user's keys stay here"),
    ("googlecompute", "labels", "${var.run_tags}", "nothing is born unlabelled"),
    ("googlecompute", "max_run_duration_in_seconds", "${var.max_run_seconds}", "GCE's deadline"),
    ("googlecompute", "instance_termination_action", "DELETE", "the default STOP bills a disk"),
    ("googlecompute", "disable_default_service_account", True, "no credential in the builder"),
    ("googlecompute", "enable_secure_boot", True, "a shielded VM"),
    ("googlecompute", "enable_vtpm", True, "a shielded VM"),
    ("googlecompute", "enable_integrity_monitoring", True, "a shielded VM"),
    ("googlecompute", "metadata.block-project-ssh-keys", "TRUE", "the project's keys stay out"),
    ("googlecompute", "use_os_login", False, "nor do its people log in"),
    ("googlecompute", "disk_name", "${var.gce_disk_name}", "it has no labels: found by its name"),
    ("googlecompute", "disk_type", "${var.gce_disk_type}", "N4 and C4 take Hyperdisk alone"),
    ("googlecompute", "image_labels", "${var.image_tags}", "what `image gc` goes by"),
    ("googlecompute", "temporary_key_pair_type", "ed25519", "as on EC2"),
    ("googlecompute", "ssh_disable_agent_forwarding", True, "the user's keys stay here"),
    ("googlecompute", "source_image_project_id", ["${local.base.gce_project}"], "the vendor's"),
    ("qemu", "iso_checksum", "${local.qemu_checksum}", "what was fetched is whole"),
    ("qemu", "disk_image", True, "a disk, not an installer"),
    ("qemu", "format", "qcow2", "what the provider takes"),
    ("qemu", "accelerator", "${var.qemu_accelerator}", "never guessed"),
    ("qemu", "headless", True, "no window"),
    ("qemu", "http_bind_address", "127.0.0.1", "the plugin's default is every address"),
    ("qemu", "ssh_disable_agent_forwarding", True, "the user's keys stay here"),
    ("qemu", "shutdown_command", "systemctl poweroff", "else QEMU is killed under its disk"),
)

#: What must not be there at all.
FORBIDDEN: Final = (
    ("amazon-ebs", "iam_instance_profile", "a builder has no role"),
    ("amazon-ebs", "temporary_iam_instance_profile_policy_document", "a builder has no role"),
    ("amazon-ebs", "temporary_security_group_source_cidrs", "this machine alone is let in"),
    ("amazon-ebs", "ami_groups", "an image is its account's"),
    ("azure-arm", "user_assigned_managed_identities", "a builder has no identity"),
    ("azure-arm", "user_data_file", "the metadata service tells it to everybody in the builder"),
    ("azure-arm", "temp_resource_group_name", "out of the guard's sight"),
    ("azure-arm", "location", "the group has one; the plugin takes one of the two"),
    ("azure-arm", "client_secret", "credentials come from the environment"),
    ("azure-arm", "security_type", "of a Trusted Launch VM no such version can be made"),
    ("googlecompute", "service_account_email", "a builder has no account"),
    ("googlecompute", "scopes", "a builder has no account"),
)

#: In the order that they run in: packages and scripts, twice, and what comes after them.
PASS: Final = ("SCRIPTS", "provision/40-unchanged.sh")
RUN: Final = (
    ("provision/10-deadline.sh",),
    ("provision/20-base.sh", "scripts/08-network.sh", "provision/30-packages.sh"),
    PASS,
    PASS,
    ("provision/50-containers.sh", "provision/60-supervisor.sh", "provision/65-buttons.sh"),
    (
        "provision/80-finish.sh",
        "scripts/80-sbom.sh",
        "scripts/90-clean.sh",
        "provision/99-leave.sh",
    ),
)

#: Every provisioner's, beside its plugin's own.
_META: Final = {"only", "except", "pause_before", "max_retries", "timeout", "override"}


def templates() -> dict[str, str]:
    """Text by file name."""
    return {path.name: path.read_text() for path in sorted(PACKER.glob("*.pkr.hcl"))}


def complaints(texts: Mapping[str, str]) -> list[str]:
    """All that is wrong with these templates; nothing when they are right."""
    merged = _merge(texts)
    sources = {
        kind: body
        for source in merged["source"]
        for kind, named in source.items()
        for body in named.values()
    }
    found = [f"sources: {sorted(sources)}"] if sorted(sources) != sorted(SOURCES) else []
    found += _pins(merged)
    for kind, body in sources.items():
        found += _unknown(kind, body)
    found += _required(sources)
    found += _variables(merged, "\n".join(texts.values()))
    found += _build(merged)
    return found


# --- parts ------------------------------------------------------------------------------------


def known() -> dict[str, dict[str, str]]:
    """Type by option, by component."""
    read = tomllib.loads((ROOT / "tests/support/packer_options.toml").read_text())
    kinds = ("block", "bool", "list", "map", "number", "string")
    return {
        name: {option: kind for kind in kinds for option in entry.get(kind, "").split()}
        for name, entry in read.items()
    }


def versions() -> dict[str, str]:
    """Version by source address of the plugin, of the options that are known."""
    read = tomllib.loads((ROOT / "tests/support/packer_options.toml").read_text())
    return dict(entry["of"].split() for entry in read.values() if "/" in entry["of"])


def _merge(texts: Mapping[str, str]) -> dict[str, list[Any]]:
    merged: dict[str, list[Any]] = {}
    for text in texts.values():
        for kind, blocks in _parsed(text).items():
            merged.setdefault(kind, []).extend(blocks)
    return merged


@cache
def _parsed(text: str) -> dict[str, list[Any]]:
    """The parser takes a second for all of them: each text is read once."""
    read: dict[str, list[Any]] = plain(hcl2.loads(text))
    return read


def plain(value: Any) -> Any:
    """Without the marks and quotes of the parser's; an expression stays `${…}`."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and value.startswith('"'):
        return value[1:-1].replace('\\"', '"')
    return value


def _pins(merged: Mapping[str, list[Any]]) -> Iterator[str]:
    plugins = {
        plugin["source"]: plugin["version"]
        for block in merged["packer"]
        for listed in block["required_plugins"]
        for plugin in listed.values()
    }
    for source, version in versions().items():
        if plugins.get(source) != f"= {version}":
            yield f"required_plugins: {source}: {plugins.get(source)} is not = {version}"


def _unknown(where: str, body: Mapping[str, Any]) -> Iterator[str]:
    options = known()[where]
    for name, value in body.items():
        kind = options.get(name)
        if kind is None:
            yield f"{where}.{name}: not an option"
        elif kind == "block":
            for block in value:
                yield from _unknown(f"{where}.{name}", block)
        elif not (_expression(value) or _fits(kind, value)):
            yield f"{where}.{name}: {value!r} is not a {kind}"


def _expression(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("${")


def _fits(kind: str, value: Any) -> bool:
    if kind == "number":
        return isinstance(value, int) and not isinstance(value, bool)
    fitting: dict[str, type] = {"bool": bool, "list": list, "map": dict, "string": str}
    return isinstance(value, fitting[kind])


def _required(sources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for kind, path, wanted, why in REQUIRED:
        value: Any = sources.get(kind, {})
        for part in path.split("."):
            value = value[0] if isinstance(value, list) else value
            value = value.get(part)
            if value is None:
                break
        if value != wanted or type(value) is not type(wanted):
            yield f"{kind}.{path}: {value!r} instead of {wanted!r}: {why}"
    for kind, option, why in FORBIDDEN:
        if option in sources.get(kind, {}):
            yield f"{kind}.{option}: must not be there: {why}"
    forwards = [words for words in sources["qemu"]["qemuargs"] if "127.0.0.1" in words[1]]
    if [words[0] for words in forwards] != ["-netdev"]:
        yield "qemu.qemuargs: SSH of the builder must be forwarded from loopback alone"
    if ["-vnc", "none"] not in sources["qemu"]["qemuargs"]:
        yield "qemu.qemuargs: no VNC"


def _variables(merged: Mapping[str, list[Any]], text: str) -> Iterator[str]:
    variables = {name: body for declared in merged["variable"] for name, body in declared.items()}
    used = set(re.findall(r"\bvar\.(\w+)", text))
    for name in sorted(used - set(variables)):
        yield f"variable {name}: used, not declared"
    for name in sorted(PASSED - set(variables)):
        yield f"variable {name}: passed by vmrunner, not declared"
    for name, body in variables.items():
        if not body.get("description") or not body.get("type"):
            yield f"variable {name}: no description or no type"
        outside = re.findall(rf"\bvar\.{name}\b", text)
        inside = re.findall(rf"\bvar\.{name}\b", str(body.get("validation", "")))
        if len(outside) == len(inside):
            yield f"variable {name}: not used"
        for rule in body.get("validation", []):
            if not re.fullmatch(r"[A-Z].*[.?]", rule["error_message"]):
                yield f"variable {name}: Packer takes whole sentences as error_message"


def _sources(body: Mapping[str, Any]) -> Iterator[str]:
    """What a provisioner uploads or runs from beside the templates must be there."""
    for path in re.findall(r"\$\{path\.root\}/([\w./-]+\.\w+)", str(dict(body))):
        if not (PACKER / path).is_file():
            yield f"build: {path}: no such file"


def _build(merged: Mapping[str, list[Any]]) -> Iterator[str]:
    (build,) = merged["build"]
    if build["sources"] != [f"source.{kind}.vmrunner" for kind in SOURCES]:
        yield f"build: sources {build['sources']}"
    if "name" in build:
        yield "build: a name: vmrunner says -only=SOURCE, which would then be -only=NAME.SOURCE"
    builder = sorted(path.name for path in (PACKER / "scripts").glob("*.sh"))
    (listed,) = [local["scripts"] for local in merged["locals"] if "scripts" in local]
    if listed != builder:
        yield f"local.scripts: {listed} instead of the local builder's {builder}"
    ran = []
    for provisioner in build["provisioner"]:
        for kind, body in provisioner.items():
            yield from _sources(body)
            options = {name: value for name, value in body.items() if name not in _META}
            yield from _unknown(kind, options)
            text = str([body.get("script"), body.get("scripts")])
            named = re.findall(r"local\.scripts|(?:provision|scripts)/[\w.-]+\.sh", text)
            if named:
                ran.append(tuple(n.replace("local.scripts", "SCRIPTS") for n in named))
    if tuple(ran) != RUN:
        yield f"build: runs {ran} instead of {list(RUN)}"
    present = {f"provision/{path.name}" for path in (PACKER / "provision").glob("*.sh")}
    for name in sorted(present ^ {n for step in RUN for n in step if n.startswith("provision")}):
        yield f"build: {name}: in the directory or in the build, not in both"
