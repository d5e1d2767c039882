"""Reviews: requests that are answered and not kept (pkg/registry/authorization, authentication)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import timestamps
from vmrunner_localclouds.kube.access import Act, User
from vmrunner_localclouds.kube.api_error import Json, KubeRefusal, bad_request, not_found
from vmrunner_localclouds.kube.kinds import SERVICE_ACCOUNTS
from vmrunner_localclouds.kube.requests import KubeRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

NAMES: Final = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")
_HOUR: Final = 3600


def review(cloud: LocalKube, user: User, request: KubeRequest) -> Json:
    """The body with its answer in `status`. Raises `KubeRefusal`."""
    if request.verb != "create":
        raise KubeRefusal(405, "the server does not allow this method on the requested resource")
    body = request.document
    spec = body.get("spec") or {}
    if request.resource == "selfsubjectreviews":
        info = {"username": user.name, "groups": list(user.groups)}
        return body | {"metadata": {}, "status": {"userInfo": info}}
    if request.resource == "selfsubjectrulesreviews":
        if not spec.get("namespace"):
            raise bad_request("no namespace on request")
        return body | {"metadata": {}, "status": _rules(cloud, user, spec["namespace"])}
    return body | {"metadata": {}, "status": {"allowed": _allowed(cloud, user, spec)}}


def _allowed(cloud: LocalKube, user: User, spec: Json) -> bool:
    wanted = spec.get("resourceAttributes")
    if wanted is None:
        path = (spec.get("nonResourceAttributes") or {}).get("path", "")
        rules = list(cloud.access.rules(user, ""))
        return any("*" in (rule.get("nonResourceURLs") or ()) for rule in rules) or path in (
            *("/api", "/apis", "/version", "/healthz", "/livez", "/readyz"),
        )
    resource = wanted.get("resource", "")
    if wanted.get("subresource"):
        resource += f"/{wanted['subresource']}"
    act = Act(
        verb=wanted.get("verb", ""),
        group=wanted.get("group", ""),
        resource=resource,
        namespace=wanted.get("namespace", ""),
        name=wanted.get("name", ""),
    )
    return cloud.access.may(user, act)


def _rules(cloud: LocalKube, user: User, namespace: str) -> Json:
    resources: list[Json] = [
        {
            "verbs": ["create"],
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        }
    ]
    others: list[Json] = []
    for rule in cloud.access.rules(user, namespace):
        (others if "nonResourceURLs" in rule else resources).append(rule)
    return {"resourceRules": resources, "nonResourceRules": others, "incomplete": False}


def account_token(cloud: LocalKube, request: KubeRequest) -> Json:
    """A TokenRequest with the token of an account, by the seconds that are wanted. Raises
    `KubeRefusal`."""
    namespace, name = request.namespace, request.name
    if cloud.store.get(SERVICE_ACCOUNTS, namespace, name) is None:
        raise not_found(SERVICE_ACCOUNTS.resource, name)
    body = request.document
    seconds = (body.get("spec") or {}).get("expirationSeconds") or _HOUR
    token = cloud.access.account(namespace, name, seconds)
    expires = timestamps.written(cloud.now() + seconds)
    return body | {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"name": name, "namespace": namespace},
        "status": {"token": token, "expirationTimestamp": expires},
    }
