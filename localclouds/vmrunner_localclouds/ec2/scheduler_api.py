"""Calls that moto does not answer: a check of permissions and quotas makes them, and who asks
for prices."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from vmrunner_localclouds.ec2 import price_api
from vmrunner_localclouds.ec2.api_error import Ec2Refusal

if TYPE_CHECKING:
    from vmrunner_localclouds.ec2.cloud import LocalCloud
    from vmrunner_localclouds.ec2.requests import Ec2Request

Answer = tuple[str, str]

_SPOT_ROLE: Final = "aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"


def answer(cloud: LocalCloud, request: Ec2Request) -> Answer | None:
    """Content type and body; None: moto knows it."""
    make = _ANSWERS.get((request.service, request.action))
    return make(cloud, request) if make else None


def _simulate(cloud: LocalCloud, request: Ec2Request) -> Answer:
    """Simulate policies: everything is allowed that the fault plan does not deny."""
    source = str(request.params.get("PolicySourceArn")).partition(":role/")[2]
    if any(path.endswith(f"/{source}") for path in cloud.roles):
        raise Ec2Refusal(
            "NoSuchEntity", f"The role with name {source} cannot be found.", status=404
        )
    members = []
    for name in request.all("ActionNames.member"):
        decision = "explicitDeny" if name.partition(":")[2] in cloud.faults.denied else "allowed"
        members.append(
            f"<member><EvalActionName>{escape(name)}</EvalActionName>"
            f"<EvalResourceName>*</EvalResourceName><EvalDecision>{decision}</EvalDecision></member>"
        )
    text = (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        "<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>"
        f"<EvaluationResults>{''.join(members)}</EvaluationResults>"
        "</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    )
    return "text/xml", text


def _role(cloud: LocalCloud, request: Ec2Request) -> Answer | None:
    """A role by its name, with the path that only IAM knows; None where it was never made."""
    name = str(request.params.get("RoleName"))
    paths = cloud.roles | ({_SPOT_ROLE} if cloud.spot_role else set())
    path = next((path for path in paths if path.rpartition("/")[2] == name), None)
    if path is None:
        return None
    text = (
        '<GetRoleResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetRoleResult><Role>'
        f"<Arn>arn:aws:iam::{cloud.account}:role/{escape(path)}</Arn>"
        f"<RoleName>{escape(name)}</RoleName></Role></GetRoleResult></GetRoleResponse>"
    )
    return "text/xml", text


def _quota(cloud: LocalCloud, request: Ec2Request) -> Answer:
    code = str(request.params.get("QuotaCode"))
    if request.action == "GetServiceQuota" and code in cloud.default_quotas:
        raise Ec2Refusal("NoSuchResourceException", "The request failed: no such quota")
    quota = {
        "ServiceCode": request.params.get("ServiceCode"),
        "QuotaCode": code,
        "QuotaName": code,
        "Value": cloud.quotas.get(code, 64.0),
        "Unit": "None",
    }
    return "application/x-amz-json-1.1", json.dumps({"Quota": quota})


_ANSWERS: Final[dict[tuple[str, str], Callable[[LocalCloud, Ec2Request], Answer | None]]] = {
    ("iam", "SimulatePrincipalPolicy"): _simulate,
    ("iam", "GetRole"): _role,
    ("servicequotas", "GetServiceQuota"): _quota,
    ("servicequotas", "GetAWSDefaultServiceQuota"): _quota,
    ("pricing", "GetProducts"): price_api.products,
    ("ec2", "DescribeSpotPriceHistory"): price_api.spot_history,
}
