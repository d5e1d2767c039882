"""`network: none` in clouds: a place that nothing goes out of, whoever is root in the VM; and what
is refused, and told, where there is no such place."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import boto3
import hcl2
import pytest
from vmrunner_localclouds.azure import fixtures as azure_fixtures
from vmrunner_localclouds.gce import fixtures

from tests.support.azure import azure as azure  # the fixture
from tests.support.ec2 import REGION, Amazon
from tests.support.ec2 import aws as aws  # the fixture
from tests.support.ec2 import make_order as ec2_order
from tests.support.gce import Google
from tests.support.gce import gce as gce  # the fixture
from tests.support.gce import make_order as gce_order
from tests.support.packer import plain
from vmrunner.errors import BadOrder
from vmrunner.model import Finding, Level, Network, Spec, Trait
from vmrunner.providers import capabilities

NONE: Final = Spec(network=Network.NONE)
DEPLOY: Final = Path(__file__).parents[2] / "deploy"
ROOT: Final = [frozenset({Trait.DOCKER}), frozenset({Trait.PRIVILEGED})]


def wall_findings(provider: Any) -> list[Finding]:
    return [finding for finding in provider.check() if finding.check == "network none"]


# --- what has no closed place --------------------------------------------------------------------


@pytest.mark.parametrize("needs", ROOT)
def test_root_without_a_network_needs_a_wall(
    aws: Amazon, gce: Google, azure: Any, needs: frozenset[Trait]
) -> None:
    for provider in (aws.provider(), gce.provider(), azure.provider()):
        with pytest.raises(BadOrder, match="root in its VM") as refused:
            capabilities.offers(provider, Spec(network=Network.NONE, needs=needs))
        assert "docker: true" in str(refused.value) or "privileged: true" in str(refused.value)
        assert "network-none-in-clouds" in refused.value.hint
        assert capabilities.offers(provider, NONE)
        assert capabilities.offers(provider, Spec(needs=needs))


def test_doctor_says_that_nothing_closes_the_vm(aws: Amazon, gce: Google, azure: Any) -> None:
    for provider in (aws.provider(), gce.provider(), azure.provider()):
        (finding,) = wall_findings(provider)
        assert finding.level is Level.WARNING
        assert "only the VM itself" in finding.message


# --- EC2 -----------------------------------------------------------------------------------------


def closed(aws: Amazon, *, egress: bool = False) -> tuple[str, str]:
    """A VPC of its own without a resolver: its subnet, and a group for SSH."""
    client = boto3.client("ec2", region_name=REGION, endpoint_url=aws.cloud.url)
    vpc = client.create_vpc(CidrBlock="10.255.0.0/16")["Vpc"]["VpcId"]
    client.modify_vpc_attribute(VpcId=vpc, EnableDnsSupport={"Value": False})
    subnet = client.create_subnet(
        VpcId=vpc, CidrBlock="10.255.0.0/20", AvailabilityZone=f"{REGION}a"
    )["Subnet"]["SubnetId"]
    group = client.create_security_group(GroupName="none", Description="none", VpcId=vpc)["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    ssh["IpRanges"] = [{"CidrIp": "192.0.2.0/24"}]
    client.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh])
    if not egress:  # Amazon gives a new group a rule for everything
        everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        client.revoke_security_group_egress(GroupId=group, IpPermissions=[everything])
    return subnet, group


@pytest.mark.parametrize("needs", [frozenset(), *ROOT])
def test_ec2_launches_it_into_its_own_groups(aws: Amazon, needs: frozenset[Trait]) -> None:
    subnet, group = closed(aws)
    provider = aws.provider(subnets_none=(subnet,), security_groups_none=(group,))
    offers = capabilities.offers(provider, Spec(network=Network.NONE, needs=needs))
    assert {offer.place for offer in offers} == {subnet}
    order = replace(ec2_order(provider), offer=offers[0], network=Network.NONE)
    provider.create(order)
    (launched,) = (request for request in aws.cloud.requests if request.action == "RunInstances")
    assert launched.all("NetworkInterface.1.SecurityGroupId") == [group]
    assert launched.params["NetworkInterface.1.SubnetId"] == subnet
    assert subnet not in {offer.place for offer in provider.offers(Spec())}


def test_ec2_doctor_finds_the_rule_of_a_new_group(aws: Amazon) -> None:
    subnet, group = closed(aws, egress=True)
    provider = aws.provider(subnets_none=(subnet,), security_groups_none=(group,))
    (finding,) = wall_findings(provider)
    assert finding.level is Level.ERROR
    assert "lets builds of network none out: everything to 0.0.0.0/0" in finding.message


@pytest.mark.parametrize("needs", [frozenset(), *ROOT])
def test_ec2_launches_nothing_into_an_open_place(aws: Amazon, needs: frozenset[Trait]) -> None:
    subnet, group = closed(aws, egress=True)
    provider = aws.provider(subnets_none=(subnet,), security_groups_none=(group,))
    with pytest.raises(BadOrder, match="lets builds of network none out") as refused:
        capabilities.offers(provider, Spec(network=Network.NONE, needs=needs))
    assert "revoke-security-group-egress" in refused.value.hint
    assert capabilities.offers(provider, Spec(needs=needs))


def test_ec2_doctor_is_content_with_a_closed_place(aws: Amazon) -> None:
    subnet, group = closed(aws)
    provider = aws.provider(subnets_none=(subnet,), security_groups_none=(group,))
    assert [finding.level for finding in wall_findings(provider)] == [Level.OK]
    client = boto3.client("ec2", region_name=REGION, endpoint_url=aws.cloud.url)
    vpc = client.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    client.modify_vpc_attribute(VpcId=vpc, EnableDnsSupport={"Value": True})
    (finding,) = wall_findings(aws.provider(subnets_none=(subnet,), security_groups_none=(group,)))
    assert (finding.level, "Amazon's resolver" in finding.message) == (Level.WARNING, True)


def test_subnets_without_groups_are_refused(aws: Amazon) -> None:
    with pytest.raises(BadOrder, match="security_groups_none: none"):
        aws.provider(subnets_none=("subnet-1",)).offers(NONE)


# --- Compute Engine ------------------------------------------------------------------------------


def firewall(gce: Google, name: str, **more: Any) -> None:
    network = "vmrunner"
    shown = fixtures.add_firewall(gce.cloud, name, network, [], [])
    shown |= {"direction": "EGRESS", "destinationRanges": ["0.0.0.0/0"], "priority": 0} | more
    for key in ("sourceRanges", "allowed"):
        if not shown[key]:
            del shown[key]


def test_gce_launches_it_with_its_own_tags(gce: Google) -> None:
    provider = gce.provider(network_tags=("build",), network_tags_none=("shut",))
    assert capabilities.offers(provider, Spec(network=Network.NONE, needs=ROOT[0]))
    for network, tag in ((Network.NONE, "shut"), (Network.OPEN, "build")):
        provider.create(replace(gce_order(provider), network=network))
        assert gce.cloud.machines[-1].shown["tags"]["items"] == [tag]


@pytest.mark.parametrize(
    ("rules", "level", "text"),
    [
        ([], Level.ERROR, "no rule denies it"),
        ([{"denied": [{"IPProtocol": "all"}], "targetTags": ["shut"]}], Level.OK, "nothing"),
        ([{"denied": [{"IPProtocol": "all"}]}], Level.OK, "nothing"),
        ([{"denied": [{"IPProtocol": "tcp"}]}], Level.ERROR, "no rule denies it"),
        ([{"denied": [{"IPProtocol": "all"}], "targetTags": ["else"]}], Level.ERROR, "no rule"),
        ([{"denied": [{"IPProtocol": "all"}], "disabled": True}], Level.ERROR, "no rule"),
        (
            [
                {"denied": [{"IPProtocol": "all"}], "priority": 900},
                {"allowed": [{"IPProtocol": "udp", "ports": ["53"]}], "priority": 800},
            ],
            Level.ERROR,
            "rule out-1: udp 53",
        ),
        (
            [
                {"denied": [{"IPProtocol": "all"}]},
                {"allowed": [{"IPProtocol": "all"}]},  # of one priority: denied
            ],
            Level.OK,
            "nothing",
        ),
        (
            [{"denied": [{"IPProtocol": "all"}], "destinationRanges": ["10.0.0.0/8"]}],
            Level.ERROR,
            "no rule denies it",
        ),
    ],
)
def test_gce_doctor_tells_what_goes_out(
    gce: Google, rules: list[dict[str, Any]], level: Level, text: str
) -> None:
    for number, rule in enumerate(rules):
        firewall(gce, f"out-{number}", **rule)
    (finding,) = wall_findings(gce.provider(network_tags_none=("shut",)))
    assert (finding.level, text in finding.message) == (level, True), finding.message


# --- Azure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "messages"),
    [
        ("VirtualNetwork", []),
        ("192.0.2.0/24", ["builds reach each other: AllowVnetInBound"]),
    ],
)
def test_azure_doctor_tells_who_gets_in(azure: Any, others: str, messages: list[str]) -> None:
    """A build with a network, which asks one without for what it has, carries that out."""
    cloud, site = azure.cloud, azure.site
    made = azure_fixtures.add_firewall(cloud, site.group, "shut", site.location, "203.0.113.7")
    rules = made["properties"]["securityRules"]
    rules[1]["properties"]["sourceAddressPrefix"] = others
    for number, to in enumerate(("AzurePlatformDNS", "*")):
        more = {"direction": "Outbound", "priority": 100 + number, "destinationAddressPrefix": to}
        kept = {**rules[1]["properties"], "sourceAddressPrefix": "*", **more}
        rules.append({"name": f"out-{number}", "properties": kept})
    found = wall_findings(azure.provider(security_group_none="shut", subnet=open_subnet(azure)))
    wrong = [finding.message for finding in found if finding.level is Level.ERROR]
    assert wrong == messages, found


def open_subnet(azure: Any) -> str:
    """A subnet without a security group of its own."""
    cloud, site = azure.cloud, azure.site
    azure_fixtures.add_network(cloud, site.group, "bare", site.location, "10.9.0.0/16")
    return "bare/default"


# --- what ships ----------------------------------------------------------------------------------


def made(name: str) -> dict[str, Any]:
    """The resources of a module, by type and name."""
    read = plain(hcl2.loads((DEPLOY / name / "terraform/network-none/main.tf").read_text()))
    return {
        f"{kind}.{named}": body
        for block in read["resource"]
        for kind, those in block.items()
        for named, body in those.items()
    }


def test_the_modules_let_nothing_out() -> None:
    amazon = made("aws")
    group = amazon["aws_security_group.none"]
    assert (group["egress"], len(group["ingress"])) == ([], 1)
    assert amazon["aws_vpc.none"]["enable_dns_support"] in (False, "false")
    google = made("gcp")["google_compute_firewall.none"]
    assert (google["direction"], google["priority"]) == ("EGRESS", 0)
    assert google["deny"] == [{"protocol": "all"}]
    assert google["destination_ranges"] == ["0.0.0.0/0"]
    rules = made("azure")["azurerm_network_security_group.none"]["security_rule"]
    out = [rule for rule in rules if rule["direction"] == "Outbound"]
    assert {rule["access"] for rule in out} == {"Deny"}
    assert {rule["destination_address_prefix"] for rule in out} == {"AzurePlatformDNS", "*"}


def test_the_modules_output_what_the_tables_are_called() -> None:
    for name, keys in (
        ("aws", {"subnets_none", "security_groups_none"}),
        ("gcp", {"network_tags_none"}),
        ("azure", {"security_group_none"}),
    ):
        text = (DEPLOY / name / "terraform/network-none/main.tf").read_text()
        assert set(re.findall(r'^output "(\w+)"', text, re.MULTILINE)) == keys
