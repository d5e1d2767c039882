"""Looking at some machines: by EC2's own id where it is known, else by their client token.

An id of ours in a tag proves nothing: tags are copied. By name a VM is that of a row when it has
the tags of this installation, and was launched with the id as its client token, which cannot be
copied. Packer's builders have another token, and a spot VM may have one of EC2's own: there the
tags must do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmrunner.model import SERVING, TAG, Key, Power, Role, Seen
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2.client import Ec2Caller
from vmrunner.providers.ec2.describe_instances import INSTANCE_ID, filtered
from vmrunner.providers.ec2.resources import seen, tags

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2


def look(
    client: Ec2Caller, keys: Sequence[Key], installation: str, *, public: bool
) -> dict[Key, Seen]:
    """Return all that can be seen: what cannot be read hides no other. Raises `CallFailed` when
    there is nothing else."""
    found: dict[Key, Seen] = {}
    ranks: dict[Key, tuple[bool, bool, float, str]] = {}
    failures: list[CallFailed] = []
    for scope in dict.fromkeys(key.scope for key in keys):
        in_scope = [key for key in keys if key.scope == scope]
        by_ref = {key.ref: key for key in in_scope if key.ref is not None}
        by_name = {key.instance: key for key in in_scope if key.ref is None}
        try:
            for item in filtered(client, scope.place, INSTANCE_ID, list(by_ref)):
                found[by_ref[item["InstanceId"]]] = seen(scope, item, public=public)
        except CallFailed as failed:
            failures.append(failed)
        own_tag = {f"tag:{TAG}installation": [installation]}
        try:
            for item in filtered(client, scope.place, f"tag:{TAG}instance", list(by_name), own_tag):
                key = by_name[tags(item)[f"{TAG}instance"]]
                view = seen(scope, item, public=public)
                rank = _rank(item, key, view)
                if _ours(item, key) and rank <= ranks.get(key, rank):
                    found[key], ranks[key] = view, rank
        except CallFailed as failed:
            failures.append(failed)
    if failures and not found:
        raise failures[0]
    return found


def _ours(item: ec2.InstanceTypeDef, key: Key) -> bool:
    role = tags(item).get(f"{TAG}role")
    tagged = item.get("InstanceLifecycle") == "spot" or not item.get("ClientToken")
    return role == Role.IMAGE or (role in SERVING and (tagged or _launched(item, key)))


def _launched(item: ec2.InstanceTypeDef, key: Key) -> bool:
    return item.get("ClientToken") == key.instance


def _rank(item: ec2.InstanceTypeDef, key: Key, view: Seen) -> tuple[bool, bool, float, str]:
    """Rank one of several with one name: ours for certain first, then the living, then the
    oldest."""
    dead = view.power is Power.DEAD
    return (not _launched(item, key), dead, view.created_at or 0.0, view.ref.id)
