"""Each command at a ledger and at a server: it does the same, or says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import vmrunner.cli
from tests.support.command_line import Cli
from tests.support.http_service import service
from tests.support.ledger_builds import SCOPE, running
from vmrunner.ledger import Ledger
from vmrunner.lib import process
from vmrunner.model import Kind, Power, Ref, Resource
from vmrunner.services.fleet import CloudView

API = "/api/v1"
#: What the tests with `anywhere` run.
OVER_A_SERVER = {
    "run", "ps", "show", "events", "logs", "watch", "cancel", "extend", "rm", "artifacts", "vm",
    "pool", "costs", "drain", "reap", "audit", "ssh",
    "sandbox", "cache", "mcp", "github", "gitlab", "garm",
}  # fmt: skip
#: What speaks of this machine wherever that is.
OF_THIS_MACHINE = {"config", "init", "version", "help"}


def test_each_command_works_over_a_server_or_says_why_not() -> None:
    here = vmrunner.cli._HERE
    assert set(vmrunner.cli._COMMANDS) <= OVER_A_SERVER | OF_THIS_MACHINE | set(here)
    page = Path(__file__, "../../../docs/http.md").resolve().read_text()
    assert [name for name, why in here.items() if f"| `{name}` | {why} |" not in page] == []


@pytest.mark.parametrize(
    "argv",
    [
        ("guard", "policy", "aws"), ("image", "ls"), ("doctor",), ("gc",),
        ("serve",), ("token", "ls"), ("notify", "ls"), ("db", "current"),
    ],
)  # fmt: skip
def test_a_command_of_the_ledgers_machine_says_so(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    monkeypatch.setenv("VMRUNNER_SERVER", "http://127.0.0.1:1")
    done = cli(*argv)
    assert (done.code, done.out) == (2, b"")
    assert vmrunner.cli._HERE[argv[0]] in done.err.decode()
    assert b"run it where the ledger is" in done.err
    assert cli(argv[0], "--help").code == 0


def test_a_build_is_removed_wherever_it_is_asked(anywhere: Cli) -> None:
    done = anywhere("run", "-a", "x", "--", "say", "x")
    build = done.last[3]
    removed = anywhere("rm", build, "nope")
    assert (removed.code, removed.out.decode()) == (7, f"{build}\n")
    assert anywhere("logs", build) == (0, b"", b"")
    assert anywhere("artifacts", "ls", build, "-o", "json").items == []
    (kept,) = anywhere("show", build, "-o", "json").items
    assert kept["result"] == "success"
    kinds = [event["kind"] for event in anywhere("events", build, "-o", "json").items]
    assert "step_ended" in kinds


def test_reap_and_audit_tell_the_same(anywhere: Cli) -> None:
    anywhere("run", "--", "say", "x")
    for argv in (
        ("reap", "--dry-run"),
        ("audit",),
        ("audit", "--tag", "a=b", "--older-than", "1h"),
    ):
        assert anywhere(*argv, "-o", "json").items == []
    wrong = anywhere("audit", "--provider", "nope")
    assert (wrong.code, b"nope" in wrong.err) == (2, True)
    refused = anywhere("audit", "--older-than", "soon", "--tag", "a=b")
    assert refused.code == 2


# --- VMs beside the cloud -------------------------------------------------------------------------


def seen(name: str, of: str | None, ledger: Ledger, kind: Kind = Kind.INSTANCE) -> Resource:
    tags = {"vmrunner:installation": ledger.installation, "vmrunner:expires-at": "900"}
    return Resource(
        ref=Ref(SCOPE, kind, name),
        tags=tags | ({"vmrunner:instance": of} if of else {}),
        power=Power.RUNNING,
        created_at=100.0,
    )


def clouds(ledger: Ledger) -> Callable[..., CloudView]:
    """Clouds that show a VM of a row, a disk of one, and what has none."""
    shown = [
        seen("i-vm-0", "vm-0", ledger), seen("d-1", "vm-1", ledger, Kind.DISK),
        seen("i-stray", None, ledger),
    ]  # fmt: skip
    return lambda *_: CloudView(shown=shown, unread=["fake: it is away"])


def test_vms_stand_beside_the_cloud_wherever_it_is_asked(
    anywhere: Cli, ledger_at_home: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2):
        running(ledger_at_home, f"b-{n}", f"vm-{n}")
    monkeypatch.setattr("vmrunner.services.fleet.look", clouds(ledger_at_home))
    done = anywhere("vm", "ls", "--cloud", "-o", "json")
    assert (done.code, b"fake: it is away" in done.err) == (7, True)
    assert [(vm["id"], vm["state"], vm["cloud"] and vm["cloud"]["ref"]) for vm in done.items] == [
        ("vm-1", "busy", None), ("vm-0", "busy", "i-vm-0"), ("vm-1", "busy", "d-1"),
        ("i-stray", None, "i-stray"),
    ]  # fmt: skip
    assert done.items[3]["cloud"]["expires_at"] == "1970-01-01T00:15:00.000Z"
    table = anywhere("vm", "ls", "--cloud").out.decode()
    for word in ("running", "not seen", "running disk", "no row"):
        assert word in table


def test_the_page_shows_who_sees_all_the_cloud_beside_vms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with service(tmp_path) as http:
        ledger, looks = http.app.ledger, []
        for n in range(2):
            running(ledger, f"b-{n}", f"vm-{n}")
        found = clouds(ledger)

        def counted(*_: object) -> CloudView:
            looks.append(1)
            return found()

        monkeypatch.setattr("vmrunner.services.fleet.look", counted)
        client, tenant = http.client(), http.tenant(team="a")
        text = client.get("/vms").text
        for word in ("not seen", "running", "disk d-1", "i-stray", "no row", "fake: it is away"):
            assert word in text
        assert "nothing in the ledger names it" in text
        assert "not seen" in client.get("/vms").text
        assert len(looks) == 1, "one look for all who see the page"
        shown = tenant.get("/vms").text
        assert "No VM is there." in shown
        assert "i-stray" not in shown
        refused = tenant.get(f"{API}/instances", params={"cloud": True})
        assert (refused.status_code, len(looks)) == (403, 1)


def test_a_build_tells_who_submitted_it(anywhere: Cli, request: pytest.FixtureRequest) -> None:
    build = anywhere("run", "--", "say", "x").last[3]
    (shown,) = anywhere("show", build, "-o", "json").items
    (listed,) = anywhere("ps", "-a", "-o", "json").items
    over_server = "server" in request.node.callspec.params.values()
    assert shown["actor"].startswith("token:t-" if over_server else process.user())
    assert listed["actor"] == shown["actor"]
    name = shown["actor_name"] if over_server else shown["actor"]
    assert f"submitter  {name}\n" in anywhere("show", build).out.decode()
