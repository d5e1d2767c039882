"""The Helm chart of the service, by Helm's own engine (a wheel that carries its library), by the
published schemas, and applied by Debian's kubectl."""

from __future__ import annotations

import copy
import tomllib
from typing import Any, Final

import pytest
import yaml
from helm_python import Chart, HelmValuesError, lint
from typer.main import get_command
from vmrunner_localclouds.kube import LocalKube
from vmrunner_localclouds.kube.kinds import DEFINITIONS, NAMESPACES
from vmrunner_localclouds.kube.pod_security import Policy, template, violations

from tests.support.http_service import Service
from tests.support.kube_deploy import CHART, VERSIONS, apply, documents, kubectl, problems
from vmrunner import cli
from vmrunner.config.settings import Settings

FULL: Final[dict[str, Any]] = yaml.safe_load((CHART / "ci/full-values.yaml").read_text())
#: The least that has to be said.
LEAST: Final[dict[str, Any]] = {
    "image": {"repository": "registry.example/vmrunner", "tag": "1"},
    "configSecret": "config",
    "secret": {"name": "vmrunner"},
}
SERVICE: Final = "service"  # the namespace
JSON = dict[str, Any]


def rendered(values: JSON, name: str = "ci") -> list[JSON]:
    with Chart.load(CHART) as chart:
        files = chart.render(values, name=name, namespace=SERVICE)
    texts = [text for file, text in sorted(files.items()) if file.endswith(".yaml")]
    return [body for text in texts for body in yaml.safe_load_all(text) if body]


def only_body(bodies: list[JSON], kind: str) -> JSON:
    (found,) = [body for body in bodies if body["kind"] == kind]
    return found


def container(bodies: list[JSON], kind: str = "StatefulSet") -> JSON:
    (found,) = only_body(bodies, kind)["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("values", [FULL, LEAST], ids=["full", "least"])
def test_helms_linter_has_nothing_to_say(values: JSON) -> None:
    report = lint(CHART, values, strict=True)
    worth = [each for each in report["messages"] if each["error"] != "icon is recommended"]
    assert (report["total_charts_linted"], worth, report["errors"]) == (1, [], [])


@pytest.mark.parametrize("values", [FULL, LEAST], ids=["full", "least"])
def test_the_services_pods_pass_the_strictest_level(values: JSON) -> None:
    """Pod Security's `restricted`, of the newest rules there are."""
    made = [found for body in rendered(values) if (found := template(body)) is not None]
    assert made
    for metadata, spec in made:
        assert violations(Policy("restricted", "latest"), 37, metadata, spec) == ""


@pytest.mark.parametrize("values", [FULL, LEAST], ids=["full", "least"])
def test_what_is_rendered_fits_the_schemas(values: JSON) -> None:
    for body in rendered(values):
        if body["kind"] != "ServiceMonitor":  # of no version of Kubernetes
            for version in VERSIONS:
                assert problems(body, version) == [], body["kind"]


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (("image", "digest"), "latest", "/image/digest"),
        (("image", "repository"), "", "/image/repository"),
        (("replicas",), 0, "/replicas"),
        (("replica",), 2, "replica"),
        (("config",), "", "oneOf"),
        (("configSecret",), "also", "oneOf"),
        (("secret", "name"), "", "/secret/name"),
        (("ingress", "tlsSecret"), "", "/ingress/tlsSecret"),
        (("ingress", "host"), "", "/ingress/host"),
        (("ingress", "portDomain"), "ports.example.org", "/ingress/portDomain"),
        (("serviceMonitor", "tokenSecret", "name"), "", "/serviceMonitor/tokenSecret/name"),
        (("service", "port"), 0, "/service/port"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_values_are_refused_by_name(at: tuple[str, ...], value: Any, words: str) -> None:
    values = copy.deepcopy(FULL) | {"service": {}}
    place = values
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    with pytest.raises(HelmValuesError) as error:
        rendered(values)
    assert words in str(error.value)


def test_nothing_runs_as_root_or_writes_its_image() -> None:
    for values in (FULL, LEAST):
        bodies = rendered(values)
        for kind in ("StatefulSet", "Job"):
            pod = only_body(bodies, kind)["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container(bodies, kind)["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            writable = {m["mountPath"] for m in container(bodies, kind)["volumeMounts"]}
            assert {"/tmp", "/var/lib/vmrunner"} <= writable


def test_probes_are_answered_without_a_token(http: Service) -> None:
    """A kubelet has none: refused, it would send nobody to any node."""
    (nodes,) = [body for body in rendered(FULL) if body["kind"] == "StatefulSet"]
    (part,) = nodes["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        target = part[probe]["httpGet"]
        assert target["port"] == "http"
        assert http.client("").get(target["path"]).status_code == 200, probe


def test_a_token_is_there_only_for_builds_in_the_cluster() -> None:
    bodies = rendered(FULL)
    binding = only_body(bodies, "RoleBinding")
    (role,) = documents("role")
    assert binding["metadata"]["namespace"] == role["metadata"]["namespace"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    account = only_body(bodies, "ServiceAccount")["metadata"]
    assert {(s["name"], s["namespace"]) for s in binding["subjects"]} == {
        (account["name"], SERVICE)
    }
    for values, mounted in ((FULL, True), (LEAST, False)):
        spec = only_body(rendered(values), "StatefulSet")["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is mounted
        assert (
            only_body(rendered(values), "ServiceAccount")["automountServiceAccountToken"] is False
        )
    assert "RoleBinding" not in {body["kind"] for body in rendered(LEAST)}


def test_its_words_are_those_that_vmrunner_knows() -> None:
    bodies = rendered(FULL)
    commands = get_command(cli.app()).commands  # type: ignore[attr-defined]
    served, upgrade = container(bodies)["args"], container(bodies, "Job")["args"]
    options = {text for parameter in commands[served[0]].params for text in parameter.opts}
    assert {word for word in served if word.startswith("--")} <= options
    assert upgrade[1] in commands[upgrade[0]].commands
    config = only_body(bodies, "ConfigMap")["data"]["config.toml"]
    settings = Settings.model_validate(tomllib.loads(config))
    hosts = {rule["host"] for rule in only_body(bodies, "Ingress")["spec"]["rules"]}
    assert hosts == {settings.server.url.removeprefix("https://"), settings.server.port_domain}
    assert settings.store.url.startswith("s3://"), "which all nodes reach"
    secrets = {e["name"] for e in container(bodies)["env"] if "valueFrom" in e}
    assert secrets == {"VMRUNNER_DATABASE_URL", "VMRUNNER_SECRET_KEY"}
    config_path = {e["name"]: e.get("value") for e in container(bodies)["env"]}["VMRUNNER_CONFIG"]
    (mount,) = [m for m in container(bodies)["volumeMounts"] if m["name"] == "config"]
    assert config_path == f"{mount['mountPath']}/config.toml"


def test_selectors_take_the_nodes_and_no_upgrade() -> None:
    bodies = rendered(FULL)
    nodes = only_body(bodies, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    upgrade = only_body(bodies, "Job")["spec"]["template"]["metadata"]["labels"]
    services = [body for body in bodies if body["kind"] == "Service"]
    budget = only_body(bodies, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    for selector in [*(s["spec"]["selector"] for s in services), budget]:
        assert selector.items() <= nodes.items()
        assert not selector.items() <= upgrade.items()
    monitor = only_body(bodies, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    taken = [s for s in services if wanted <= s["metadata"]["labels"].items()]
    assert [s["spec"].get("clusterIP") for s in taken] == ["None"], "each node once"
    assert monitor["endpoints"][0]["port"] in {p["name"] for p in taken[0]["spec"]["ports"]}


def test_a_changed_configuration_starts_the_nodes_anew() -> None:
    def notes(config: str) -> Any:
        template = only_body(rendered(FULL | {"config": config}), "StatefulSet")["spec"]["template"]
        return template["metadata"]["annotations"]

    assert notes("a = 1") != notes("a = 2")


def test_two_releases_share_nothing() -> None:
    first, second = (
        {(b["kind"], b["metadata"]["name"]) for b in rendered(FULL, name)} for name in ("a", "b")
    )
    assert not first & second


def test_kubectl_applies_what_is_rendered() -> None:
    with LocalKube() as cloud:
        cloud.add_object(NAMESPACES, {"metadata": {"name": SERVICE}})
        cloud.add_object(DEFINITIONS, MONITORS)
        apply(cloud.kubeconfig, [b for n in ("namespace", "role") for b in documents(n)])
        for values, name in ((FULL, "ci"), (LEAST, "least")):
            bodies = rendered(values, name)
            text = apply(cloud.kubeconfig, bodies)
            assert len(text.splitlines()) == len(bodies)
        again = apply(cloud.kubeconfig, rendered(FULL))
        changed = [line for line in again.splitlines() if not line.endswith("unchanged")]
        # Its selector's patch strategy is `replace`, which kubectl always sends.
        assert [line.split("/")[0] for line in changed] == ["poddisruptionbudget.policy"]
        shown = kubectl(cloud.kubeconfig, "get", "statefulset", "-n", SERVICE, "-o", "name")
        assert shown.split() == ["statefulset.apps/ci-vmrunner", "statefulset.apps/least-vmrunner"]


#: As much of the operator's definition as an API server asks for.
MONITORS: Final[JSON] = {
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "names": {
            "kind": "ServiceMonitor",
            "listKind": "ServiceMonitorList",
            "plural": "servicemonitors",
            "singular": "servicemonitor",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}
