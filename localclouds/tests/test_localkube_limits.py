"""Limits of the API: who ignores one is refused. Each line of the table has a test here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from vmrunner_localclouds.kube.vendor_limits import LIMITS, limit

from tests.support.kube import KubeApi, job, pod, secret, vmi
from tests.support.kube import kube as kube  # the fixture


def labelled(value: str) -> dict[str, Any]:
    return {**secret(), "metadata": {"name": "a", "labels": {"a": value}}}


def annotated(value: str) -> dict[str, Any]:
    return {**secret(), "metadata": {"name": "a", "annotations": {"a": value}}}


def with_user_data(value: str) -> dict[str, Any]:
    body = vmi()
    body["spec"]["volumes"][1]["cloudInitNoCloud"] = {"userData": value}
    return body


#: Limit → a body as large as that, but for `less`; and the status of one that is larger.
BODIES: Final[dict[str, tuple[Callable[[str], dict[str, Any]], int, int]]] = {
    "characters of a name": (secret, 0, 422),
    "characters of a label's value": (labelled, 0, 422),
    "characters of a Job's name": (job, 0, 422),
    "bytes of a secret": (lambda text: {**secret(), "stringData": {"a": text}}, 0, 422),
    "bytes of all annotations": (annotated, 1, 422),
    "bytes of a VMI's plain user-data": (with_user_data, 0, 422),
}


@pytest.mark.parametrize("name", BODIES)
def test_who_ignores_a_limit_is_refused(kube: KubeApi, name: str) -> None:
    make, less, status = BODIES[name]
    most = int(limit(name)) - less
    assert kube.create(make("a" * (most + 1))).status == status
    assert kube.create(make("a" * most)).status == 201


def test_a_namespaces_name_is_short(kube: KubeApi) -> None:
    most = int(limit("characters of a namespace's name"))
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a" * (most + 1)}}
    assert kube.ask("POST", "/api/v1/namespaces?dryRun=All", body).status == 422


def test_a_request_is_no_larger_than_that(kube: KubeApi) -> None:
    body = pod() | {"padding": "x" * int(limit("bytes of a request"))}
    assert kube.create(body).status == 413


def test_each_line_of_the_table_has_a_test() -> None:
    shown = {*BODIES, "characters of a namespace's name", "bytes of a request"}
    assert set(LIMITS) == shown | {"seconds that a page's token lives"}  # test_localkube.py
