"""Ceilings of callers over HTTP: network, Docker and images, by `limits` and by a token's quota."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support import ec2
from tests.support.http_service import TENANT, Service, service
from tests.support.ledger_builds import SCOPE, spec, submitted
from vmrunner.errors import ConfigError, NotAllowed
from vmrunner.lib import ids
from vmrunner.model import AllowList, ImageState, MadeImage, Network, TokenQuota
from vmrunner.services import ceilings

API = "/api/v1"
LABELS = {"team": "core"}
SOME = AllowList(("pypi.org", "*.example.net"))


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No service of these tests has the user's own ledger."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def dry_run(http: Service, quota: TokenQuota, kind: str = "builds", **body: Any) -> Any:
    client = http.client(http.token(TENANT, labels=LABELS, quota=quota))
    steps = {"steps": ["say x"]} if kind == "builds" else {}
    return client.post(f"{API}/{kind}?dry_run=true", json={**steps, **body})


@pytest.mark.parametrize("kind", ["builds", "sandboxes"])
@pytest.mark.parametrize(
    ("most", "wanted", "taken"),
    [
        (Network.NONE, "none", "none"),
        (Network.NONE, "open", None),
        (Network.NONE, {"allow": ["pypi.org"]}, None),
        (SOME, {"allow": ["pypi.org", "a.example.net"]}, {"allow": ["pypi.org", "a.example.net"]}),
        (SOME, {"allow": ["pypi.org:80"]}, None),
        (SOME, {"allow": ["other.org"]}, None),
        (SOME, "open", None),
        (Network.OPEN, "open", "open"),
    ],
)
def test_a_token_reaches_no_more_than_its_quota(
    http: Service, kind: str, most: Any, wanted: Any, taken: Any
) -> None:
    answer = dry_run(http, TokenQuota(network=most), kind, network=wanted)
    if taken is None:
        assert (answer.status_code, answer.json()["error"]) == (403, "NotAllowed")
        assert answer.json()["detail"].startswith("network: ")
    else:
        assert answer.json()["items"][0]["network"] == taken


@pytest.mark.parametrize(("most", "taken"), [(Network.NONE, "none"), (SOME, SOME.value)])
def test_where_nothing_is_said_the_ceiling_counts(http: Service, most: Any, taken: Any) -> None:
    """The default is open here: else each build of such a token would be refused."""
    answer = dry_run(http, TokenQuota(network=most))
    assert answer.json()["items"][0]["network"] == taken


@pytest.mark.parametrize("field", ["docker", "privileged"])
def test_a_token_without_docker_gets_none(tmp_path: Path, field: str) -> None:
    with service(tmp_path, limits={"privileged": True}) as http:
        assert dry_run(http, TokenQuota(), **{field: True}).status_code == 200
        refused = dry_run(http, TokenQuota(docker=False), **{field: True})
        assert (refused.status_code, refused.json()["detail"].partition(":")[0]) == (403, field)
        assert dry_run(http, TokenQuota(docker=False)).status_code == 200


def test_limits_hold_all_alike(tmp_path: Path) -> None:
    limits = {"network": "none", "docker": False}
    with service(tmp_path, limits=limits) as http:
        for options in ({"network": "open"}, {"docker": True}):
            answer = http.client().post(f"{API}/builds", json={"steps": ["say x"], **options})
            assert (answer.status_code, answer.json()["field"]) == (422, next(iter(options)))
            with pytest.raises(ConfigError, match=next(iter(options))):
                http.runner.submit("say x", **options)
        assert http.runner.submit("say x")._row.spec.network is Network.NONE
        former = submitted(http.app.ledger, "b-1", provider="fake", network=Network.OPEN).id
        assert http.client().post(f"/builds/{former}/again").status_code == 422


def test_what_is_run_again_obeys_the_quota(http: Service) -> None:
    former = submitted(
        http.app.ledger, "b-1", provider="fake", network=Network.OPEN, labels=LABELS
    ).id
    quota = TokenQuota(network=Network.NONE)
    client = http.client(http.token(TENANT, labels=LABELS, quota=quota))
    assert client.post(f"/builds/{former}/again").status_code == 403


def test_a_quota_comes_back_from_the_ledger(http: Service) -> None:
    quota = TokenQuota(network=SOME, docker=False, images=("a",), builds=1, providers=("fake",))
    http.token(TENANT, labels=LABELS, quota=quota)
    assert quota in [token.quota for token in http.app.ledger.tokens.list()]
    assert TokenQuota.of(
        {"builds": 3, "max_ttl": None, "providers": ["x"], "usd_per_day": None}
    ) == (TokenQuota(builds=3, providers=("x",))), "as former versions wrote it"


def made(http: Service, name: str, ref: str, provider: str, state: ImageState) -> None:
    now = time.time()
    http.app.ledger.images.add(
        MadeImage(
            id=ids.image_id(), provider=provider, scope=SCOPE, name=name, recipe="default",
            hash="0" * 20, builder=ids.instance_id(), state=state, created_at=now,
            deadline=now + 60, ref=ref,
        )
    )  # fmt: skip


def test_a_caller_boots_no_image_of_another_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ec2.amazon() as aws:
        client = boto3.client("ec2", region_name=ec2.REGION, endpoint_url=aws.cloud.url)

        def registered(name: str) -> str:
            disk = {"VolumeSize": 8, "DeleteOnTermination": True}
            return client.register_image(
                Name=name, Architecture="x86_64", RootDeviceName="/dev/xvda",
                BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": disk}],
            )["ImageId"]  # fmt: skip

        golden, ours, listed = map(registered, ("golden", "vmrunner-ours", "listed"))
        cloud = {
            "kind": "ec2", "region": ec2.REGION, "image": aws.site.image,
            "subnets": list(aws.site.subnets[:2]), "security_groups": [aws.site.security_group],
            "instance_types": ["m7i.large"], "endpoint_url": aws.cloud.url,
        }  # fmt: skip
        with service(tmp_path, providers={"aws": cloud}, limits={"images": [listed]}) as http:
            made(http, "vmrunner-ours", ours, "aws", ImageState.READY)
            made(http, "golden", golden, "other", ImageState.READY)
            made(http, "golden", golden, "aws", ImageState.FAILED)
            for image in (golden, "golden", "gold*", "*", "ami-"):
                refused = dry_run(http, TokenQuota(), image=image)
                assert (refused.status_code, refused.json()["error"]) == (403, "NotAllowed"), image
                with pytest.raises(NotAllowed, match="image: "):
                    http.runner.submit("true", image=image)
            for image in (ours, "vmrunner-ours", listed, aws.site.image, None):
                values = {} if image is None else {"image": image}
                assert dry_run(http, TokenQuota(), **values).status_code == 200, image
            held = TokenQuota(images=("vmrunner-ours",))
            assert dry_run(http, held, image=listed).status_code == 403
            assert dry_run(http, held, image="vmrunner-ours").status_code == 200
            assert dry_run(http, TokenQuota(images=(golden,)), image=golden).status_code == 403
            former = submitted(
                http.app.ledger, "b-1", provider="aws", image=golden, labels=LABELS
            ).id
            client_ = http.client(http.token(TENANT, labels=LABELS))
            assert client_.post(f"/builds/{former}/again").status_code == 403
        with service(tmp_path, providers={"aws": cloud}) as http:
            assert dry_run(http, TokenQuota(), image=listed).status_code == 403
            local = spec(provider="aws", image=golden)  # at the ledger itself all are allowed
            settings, ledger = http.parts.settings(), http.app.ledger
            ceilings.check_image(local, settings, ledger, remote=False)
            with pytest.raises(NotAllowed):
                ceilings.check_image(local, settings, ledger, remote=True)
