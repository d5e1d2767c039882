"""Documents of the command line, held against their schemas; those of HTTP are held so by the
client of each test over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support import caches, documents
from tests.support.command_line import Cli, script
from tests.support.pools import POOL
from vmrunner.cli.commands import guard, image_gc
from vmrunner.cli.commands.config import _sealed, _trusted
from vmrunner.config.trust import TrustedFile
from vmrunner.core.audit_rules import AuditFault, Survivor
from vmrunner.core.image_retention import RetainedImage, RetentionReason, RetentionVerdict
from vmrunner.images.retention import ImageOutcome
from vmrunner.ledger import Ledger
from vmrunner.ledger.sealed_values import ResealedColumn
from vmrunner.model import CacheScope, Death, EndpointStatus
from vmrunner.providers.port_guard import GuardPart, PartState
from vmrunner.reaper.report import ReportLine
from vmrunner.services import document_schemas
from vmrunner.services import documents as writers
from vmrunner.services.nodes import Node


def test_documents_of_commands_are_as_their_schemas(
    cli: Cli, home: Path, ledger_at_home: Ledger
) -> None:
    documents.SEEN.clear()
    caches.save(ledger_at_home, "cache-1", CacheScope(tenant="local", own="local"))
    ledger_at_home.pools.declare({"fast": POOL}, "e-1", time.time())
    assert cli("token", "create", "ci", "--scope", "read", "--network", "allow=a.example").code == 0
    (build,) = cli("run", "-a", "**", "-o", "json", *script("hex 610a", "artifact a x")).items
    for line in (
        "ps -a",
        f"show {build['id']}",
        f"events {build['id']}",
        f"logs {build['id']}",
        f"artifacts ls {build['id']}",
        "vm ls -a",
        "vm ls -a --cloud",
        f"vm show {build['instance']}",
        "costs",
        "pool ls",
        "gc --dry-run",
        "doctor",
        "token ls",
        "cache ls",
        "config show",
        "run --dry-run -f script.yml j",
        "backup there",
    ):
        shown = cli(*line.split(), "-o", "json")
        assert shown.items, (line, shown.err)
    assert {
        "artifact",
        "backup",
        "build",
        "cache",
        "cost",
        "event",
        "finding",
        "instance",
        "log_line",
        "pool",
        "removal",
        "setting",
        "spec",
        "token",
    } <= documents.SEEN


IMAGE = RetainedImage(ref="r", name="debian", created=1.0)
VERDICT = ReportLine(provider="fake", what="delete", kind="instance", id="i", reason=Death.EXPIRED)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (
            "image_verdict",
            image_gc._document(
                ImageOutcome(
                    verdict=RetentionVerdict(image=IMAGE, why=RetentionReason.OLD), title="t"
                )
            ),
        ),
        ("guard_part", guard._document(GuardPart(name="n", id="i", state=PartState.DIFFERS))),
        ("sealed", _sealed(ResealedColumn(name="tokens.secret"))),
        ("trusted", _trusted(TrustedFile("0" * 64, "/nowhere"))),
        ("verdict", writers.verdict_document(VERDICT)),
        (
            "survivor",
            writers.survivor_document(
                Survivor(fault=AuditFault.UNREAD, instance=None, ref=None, late=None, message="m")
            ),
        ),
        (
            "notify_endpoint",
            writers.endpoint_document(
                EndpointStatus(
                    name="n",
                    named_at=0.0,
                    waiting=0,
                    oldest=None,
                    delivered_at=1.0,
                    failures=0,
                    error="",
                    given_up=0,
                    given_up_at=None,
                )
            ),
        ),
        (
            "node",
            writers.node_document(
                Node(
                    id="e-1",
                    kind="serve",
                    machine="m",
                    pid=1,
                    joined_at=0.0,
                    seen_at=1.0,
                    alive=True,
                    reaps=False,
                    providers=("fake",),
                    builds=0,
                    version="0001",
                    outdated=False,
                )
            ),
        ),
    ],
)
def test_a_rare_document_is_as_its_schema(kind: str, document: dict[str, Any]) -> None:
    documents.checked(json.loads(json.dumps(document)), kind)


def test_config_schema_holds_an_envelope_and_each_line(cli: Cli, home: Path) -> None:
    shown = cli("config", "schema", "--document", "build")
    schema = json.loads(shown.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert cli("run", *script("hex 61")).code == 0
    whole = json.loads(cli("ps", "-a", "-o", "json").out)
    (line,) = cli("ps", "-a", "-o", "jsonl").out.splitlines()
    jsonschema.validate(whole, schema)
    jsonschema.validate(json.loads(line), schema)
    for missing in ("schema_version", "kind", "items"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in whole.items() if k != missing}, schema)


def test_a_wrong_document_is_answered_with_the_names(cli: Cli, home: Path) -> None:
    done = cli("config", "schema", "--document", "bild")
    assert (done.code, done.out) == (2, b"")
    assert b"did you mean 'build'?" in done.err
    for page in document_schemas.PAGES.values():
        assert page.kind.encode() in done.err
    for other in ("--job", "--openapi"):
        assert cli("config", "schema", "--document", "build", other).code == 2
    assert json.loads(cli("config", "schema", "--openapi").out)["openapi"].startswith("3.1")


def test_the_types_of_documents_cost_no_command_time() -> None:
    code = (
        "import sys, vmrunner.services.documents; "
        "print([name for name in sys.modules if 'document_types' in name or name == 'pydantic'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
