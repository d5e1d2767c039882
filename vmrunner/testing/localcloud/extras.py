"""What moto does not answer at all, and a check of one's own rights and quotas asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from vmrunner.testing.localcloud.cloud import LocalCloud
    from vmrunner.testing.localcloud.requests import Request

Answer = tuple[str, str]


def answer(cloud: LocalCloud, request: Request) -> Answer | None:
    """Content type and body; None: moto knows it."""
    make = _ANSWERS.get((request.service, request.action))
    return make(cloud, request) if make else None


def _simulate(cloud: LocalCloud, request: Request) -> Answer:
    """May somebody do these? Everything that the fault plan does not deny."""
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


def _quota(cloud: LocalCloud, request: Request) -> Answer:
    code = str(request.params.get("QuotaCode"))
    quota = {
        "ServiceCode": request.params.get("ServiceCode"),
        "QuotaCode": code,
        "QuotaName": code,
        "Value": cloud.quotas.get(code, 64.0),
        "Unit": "None",
    }
    return "application/x-amz-json-1.1", json.dumps({"Quota": quota})


_ANSWERS: Final[dict[tuple[str, str], Callable[[LocalCloud, Request], Answer]]] = {
    ("iam", "SimulatePrincipalPolicy"): _simulate,
    ("servicequotas", "GetServiceQuota"): _quota,
}
