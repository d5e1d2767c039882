"""Alert rules and dashboard, held against what /metrics says, by Prometheus' own programs."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from tests.support.http_service import Service, only, service
from tests.support.scripted_app import wait_until
from vmrunner.model import HostUsage, NotifyEndpoint, NotifyEvent, TokenScope

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\bvmrunner_\w+")
USES = "use memory_peak 1024\nuse cpu_seconds 2.5\nuse disk_read 3\nuse network_sent 300\nexit 3"


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with service(tmp_path) as found:
        seen = HostUsage(cpu_seconds=4.0, disk=1 << 20)
        found.app.providers.get("fake").used = lambda _: seen  # type: ignore[attr-defined]
        build = only(found.client().post("/api/v1/builds", json={"steps": [USES]}))["id"]
        found.ended(build)
        named = [NotifyEndpoint(name="chat", events=frozenset(NotifyEvent))]
        found.app.ledger.outbox.declare(named, time.time())
        yield found


def promtool(*argv: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["promtool", *argv], input=stdin, capture_output=True, text=True, cwd=DEPLOY / "prometheus"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_are_sound_and_fire_when_they_must() -> None:
    assert "10 rules found" in promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts_test.yml")
    tested = {
        case["alertname"]
        for test in yaml.safe_load((DEPLOY / "prometheus/alerts_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if "exp_alerts" in case
    }
    (group,) = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    assert {rule["alert"] for rule in group["rules"]} == tested


def test_metrics_are_named_as_prometheus_wants_them(http: Service) -> None:
    promtool("check", "metrics", stdin=http.client().get("/metrics").text)


def test_rules_and_dashboard_ask_for_what_there_is(http: Service) -> None:
    exported = set(NAME.findall(http.client().get("/metrics").text))
    for file in ("prometheus/alerts.yml", "grafana/vmrunner.json"):
        asked_names = set(NAME.findall((DEPLOY / file).read_text()))
        assert asked_names <= exported, file
    board = json.loads((DEPLOY / "grafana/vmrunner.json").read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    assert sorted(set(numbers)) == numbers
    assert all(panel["targets"] for panel in board["panels"])


def test_a_real_prometheus_scrapes_it_with_a_token(http: Service, tmp_path: Path) -> None:
    token = tmp_path / "vmrunner.token"
    token.write_text(http.token(frozenset({TokenScope.METRICS})))
    example = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = example["scrape_configs"]
    job["scrape_interval"] = "1s"
    job["authorization"]["credentials_file"] = str(token)
    job["static_configs"] = [{"targets": [http.url.removeprefix("http://")]}]
    example["rule_files"] = [str(DEPLOY / "prometheus/alerts.yml")]
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(example))
    with (
        (tmp_path / "prometheus.log").open("wb") as log,
        httpx2.Client() as client,
        subprocess.Popen(
            [
                "prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/tsdb",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=log, stderr=log,
        ) as process,
    ):  # fmt: skip
        try:
            wait_until(lambda: _address(tmp_path) is not None, what="Prometheus to listen")
            url = f"http://{_address(tmp_path)}"
            wait_until(lambda: client.get(f"{url}/-/ready").status_code == 200, what="its start")

            def ended() -> bool:
                values = {"query": "sum(vmrunner_builds_total)"}
                found = client.get(f"{url}/api/v1/query", params=values).json()["data"]["result"]
                return bool(found) and found[0]["value"][1] == "1"

            wait_until(ended, seconds=30, what="the first scrape")
            board = json.loads((DEPLOY / "grafana/vmrunner.json").read_text())
            for ask in (target["expr"] for panel in board["panels"] for target in panel["targets"]):
                answer = client.get(f"{url}/api/v1/query", params={"query": ask}).json()
                assert answer["status"] == "success", ask
            rules = client.get(f"{url}/api/v1/rules").json()["data"]["groups"][0]["rules"]
            assert len(rules) == 10
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        finally:
            process.terminate()


def _address(place: Path) -> str | None:
    """Where it listens, by its own word."""
    text = (place / "prometheus.log").read_text()
    found = re.search(r'msg="?Listening on"? address=(\S+)', text)
    return found[1].strip('"') if found else None
