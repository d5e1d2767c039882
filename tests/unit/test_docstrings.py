"""Docstrings open with a noun or an imperative: no relative clause, no question, no "It …"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "vmrunner"
WRONG_OPENING = re.compile(
    r"(What|Whatever|Whether|Which|Who|Whom|Whose|Whoever|How|Why|When|Where|Of|Those|That"
    r"|Is|Are|Was|Were|Does|Did|Has|Can|Could|May|Must|Would|Should"
    r"|It|Its|There|By|As|From|In|On|At|For|With|Within|Without|Until|Before|After|If|Not)\b"
)
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# Packages and modules whose docstrings are still to be rewritten: this list only ever gets shorter.
LATER: tuple[str, ...] = (
    "api/",
    "cli/",
    "config/",
    "core/lifecycle.py",
    "core/pricing.py",
    "core/reap_rules.py",
    "engine/",
    "images/cloud/cleanup.py",
    "images/recipe.py",
    "images/verify/trial_vm.py",
    "ledger/build_writes.py",
    "ledger/events.py",
    "lib/cron.py",
    "lib/threads.py",
    "model/cloud.py",
    "providers/__init__.py",
    "providers/ec2/catalog.py",
    "providers/ec2/client.py",
    "providers/ec2/describe.py",
    "providers/ec2/describe_instances.py",
    "providers/ec2/error_codes.py",
    "providers/ec2/guard/names.py",
    "providers/ec2/images.py",
    "providers/ec2/isolation.py",
    "providers/ec2/resources.py",
    "providers/ec2/sweep.py",
    "providers/fake/limits.py",
    "providers/gce/error_codes.py",
    "providers/qemu/processes.py",
    "reaper/",
    "runtime/",
    "services/",
    "session/job.py",
    "session/outcome.py",
    "session/session.py",
)

# Users read these: `--help`, and descriptions in the published schemas.
PUBLISHED = {
    "Is every part there, as it should be, and does it work? Exits 7 when not.",
    "Is everything there, and allowed? Each finding with its fix.",
    "What a build brought back.",
    "What a build may reach.",
    "What a command does: the same as COMMAND --help.",
    "What happened to one build, in order.",
    "What holds for every job of a file that does not say otherwise.",
    "What to bring back: a glob relative to the work directory.",
    "What `vmrunner run -f vmrunner.yml NAME` submits. Flags go before it.",
    "Which vmrunner this is.",
    "Without a project nothing can be asked; without zones nothing is launched.",
    "Without subnets and security groups it looks, sweeps and deletes, and launches nothing.",
}


def wrong_in(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, DEFINITIONS) and is_wrong(ast.get_docstring(node) or ""):
            text = " ".join((ast.get_docstring(node) or "").split())
            if text not in PUBLISHED:
                yield f"{file.relative_to(PACKAGE)}: {getattr(node, 'name', 'module')}: {text}"


def is_wrong(text: str) -> bool:
    first = re.split(r"\n\n|(?<=[.?!])\s", text, maxsplit=1)[0]
    return bool(WRONG_OPENING.match(text)) or first.endswith("?")


def test_docstrings_open_with_a_noun_or_an_imperative() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    done = [file for file in files if not str(file.relative_to(PACKAGE)).startswith(LATER)]
    assert [text for file in done for text in wrong_in(file)] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Return the build's state.", False),
        ("Liveness of other engines.", False),
        ("Itself a noun.", False),
        ("What is asked.", True),
        ("Of the others, one.", True),
        ("Anybody there? Then wait.", True),
    ],
)
def test_the_rule_knows_right_from_wrong(text: str, wrong: bool) -> None:
    assert is_wrong(text) is wrong
