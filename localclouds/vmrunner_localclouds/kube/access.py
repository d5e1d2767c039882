"""Callers and their rights: tokens, and RBAC by the Roles of the API
(plugin/pkg/auth/authorizer/rbac/rbac.go of 1.34.2)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.kube.api_error import Json, KubeRefusal, bad_request
from vmrunner_localclouds.kube.kinds import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
)
from vmrunner_localclouds.kube.requests import KubeRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_MASTERS: Final = "system:masters"
_ACCOUNT: Final = "system:serviceaccount:"
#: Paths that every authenticated user may read (`system:discovery`,
#: `system:public-info-viewer`).
_PUBLIC: Final = ("/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz")


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    expires: float = math.inf  # epoch seconds


ADMIN: Final = User(name="system:admin", groups=(_MASTERS, "system:authenticated"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """One act, as a rule grants it. `resource` has its subresource: `pods/exec`."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


class Access:
    """All tokens, and the decision about each request."""

    def __init__(self, cloud: LocalKube) -> None:
        self._cloud = cloud
        self.users: dict[str, User] = {}  # by token
        #: Of a WebSocket too: Kubernetes 1.35 and later.
        self.asks_create = tuple(map(int, cloud.version.split("."))) >= (1, 35)

    def token(self, user: User) -> str:
        """A new token of a user's."""
        made = secrets.token_urlsafe(32)
        self.users[made] = user
        return made

    def account(self, namespace: str, name: str, seconds: float = math.inf) -> str:
        """A new token of a service account's."""
        user = User(
            name=f"{_ACCOUNT}{namespace}:{name}",
            groups=_account_groups(namespace),
            expires=self._cloud.now() + seconds,
        )
        return self.token(user)

    def user(self, request: KubeRequest) -> User:
        """Raises `KubeRefusal`: 401."""
        user = self.users.get(request.key)
        if user is None or user.expires <= self._cloud.now():
            raise KubeRefusal(401, "Unauthorized")
        name = request.headers.get("impersonate-user")
        return user if name is None else self._impersonated(user, name, request)

    def _impersonated(self, user: User, name: str, request: KubeRequest) -> User:
        """The user whom a request names in its caller's place, as `kubectl --as` does
        (apiserver/pkg/endpoints/filters/impersonation.go). Raises `KubeRefusal`: 403."""
        namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
        if name.startswith(_ACCOUNT):
            groups = _account_groups(namespace)
            act = Act(
                verb="impersonate",
                group="",
                resource="serviceaccounts",
                namespace=namespace,
                name=account,
            )
        else:
            groups = ("system:authenticated",)
            act = Act(verb="impersonate", group="", resource="users", namespace="", name=name)
        if "impersonate-group" in request.headers:
            raise bad_request("groups are impersonated by nobody here")
        if not self.may(user, act):
            raise KubeRefusal(403, _refusal(user, act), details={"kind": act.resource})
        return User(name=name, groups=groups)

    def admit(self, user: User, request: KubeRequest) -> None:
        """Raises `KubeRefusal`: 403."""
        if not request.resource:
            if _MASTERS in user.groups or request.path.startswith(_PUBLIC) or request.path == "/":
                return
            text = f'forbidden: User "{user.name}" cannot get path "{request.path}"'
            raise KubeRefusal(403, text)
        act = act_of(request)
        if not self.may(user, act):
            raise KubeRefusal(403, _refusal(user, act), details={"kind": act.resource})
        if self.asks_create and act.verb == "get" and _upgrades(request):
            created = Act(
                verb="create",
                group=act.group,
                resource=act.resource,
                namespace=act.namespace,
                name=act.name,
            )
            if not self.may(user, created):
                raise KubeRefusal(403, _refusal(user, created), details={"kind": act.resource})

    def may(self, user: User, act: Act) -> bool:
        if _MASTERS in user.groups:
            return True
        if act.resource.startswith("selfsubject"):
            return True  # `system:basic-user`
        return any(_covers(rule, act) for rule in self.rules(user, act.namespace))

    def rules(self, user: User, namespace: str) -> Iterator[Json]:
        """The rules that hold for a user in a namespace, or in none of them."""
        store = self._cloud.store
        if _MASTERS in user.groups:
            yield {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            yield {"verbs": ["*"], "nonResourceURLs": ["*"]}
        for binding in store.all(CLUSTER_ROLE_BINDINGS):
            if _binds(binding, user):
                yield from self._role("", binding["roleRef"])
        for binding in store.all(ROLE_BINDINGS, namespace) if namespace else ():
            if _binds(binding, user):
                yield from self._role(namespace, binding["roleRef"])

    def _role(self, namespace: str, reference: Json) -> Iterator[Json]:
        store = self._cloud.store
        if reference["kind"] == "ClusterRole":
            found = store.get(CLUSTER_ROLES, "", reference["name"])
        else:
            found = store.get(ROLES, namespace, reference["name"])
        if found is not None:
            yield from found.get("rules") or ()


def act_of(request: KubeRequest) -> Act:
    sub = request.subresource.partition("/")[0]
    return Act(
        verb=request.verb,
        group=request.group,
        resource=f"{request.resource}/{sub}" if sub else request.resource,
        namespace=request.namespace,
        name=request.name,
    )


def _account_groups(namespace: str) -> tuple[str, ...]:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return (*groups, "system:authenticated")


def _upgrades(request: KubeRequest) -> bool:
    """True for a stream of a pod's over a WebSocket: 1.35 asks for `create` too
    (`AuthorizePodWebsocketUpgradeCreatePermission`)."""
    sub = request.subresource
    return request.resource == "pods" and sub in ("exec", "attach", "portforward")


def _binds(binding: Json, user: User) -> bool:
    for subject in binding.get("subjects") or ():
        kind, name = subject["kind"], subject["name"]
        if kind == "User" and name == user.name:
            return True
        if kind == "Group" and name in user.groups:
            return True
        account = f"system:serviceaccount:{subject.get('namespace')}:{name}"
        if kind == "ServiceAccount" and account == user.name:
            return True
    return False


def _covers(rule: Json, act: Act) -> bool:
    """True if a rule grants this: pkg/apis/rbac/v1/evaluation_helpers.go."""
    names: list[Any] = rule.get("resourceNames") or []
    _, _, sub = act.resource.partition("/")
    wanted = {"*", act.resource} | ({f"*/{sub}"} if sub else set())
    return (
        bool({"*", act.verb} & set(rule["verbs"]))
        and bool({"*", act.group} & set(rule.get("apiGroups") or ()))
        and bool(wanted & set(rule.get("resources") or ()))
        and (not names or act.name in names)
    )


def _refusal(user: User, act: Act) -> str:
    plain = act.resource.partition("/")[0]
    what = f"{plain}.{act.group}" if act.group else plain
    named = f' "{act.name}"' if act.name else ""
    text = f'{what}{named} is forbidden: User "{user.name}" cannot {act.verb} resource '
    text += f'"{act.resource}" in API group "{act.group}"'
    where = f' in the namespace "{act.namespace}"' if act.namespace else " at the cluster scope"
    return text + where
