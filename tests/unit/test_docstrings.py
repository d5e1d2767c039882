"""Docstrings open with a noun or an imperative: no relative clause, no question, no "It …"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "vmrunner", ROOT / "localclouds/vmrunner_localclouds")
WRONG_OPENING = re.compile(
    r"(What|Whatever|Whether|Which|Who|Whom|Whose|Whoever|How|Why|When|Where|Of|Those|That"
    r"|Is|Are|Was|Were|Does|Did|Has|Can|Could|May|Must|Would|Should"
    r"|It|Its|There|By|As|From|In|On|At|For|With|Within|Without|Until|Before|After|If|Not)\b"
)
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def wrong_in(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, DEFINITIONS) and is_wrong(ast.get_docstring(node) or ""):
            yield f"{file.relative_to(ROOT)}: {getattr(node, 'name', 'module')}"


def is_wrong(text: str) -> bool:
    first = re.split(r"\n\n|(?<=[.?!])\s", text, maxsplit=1)[0]
    return bool(WRONG_OPENING.match(text)) or first.endswith("?")


def test_docstrings_open_with_a_noun_or_an_imperative() -> None:
    files = [file for package in PACKAGES for file in sorted(package.rglob("*.py"))]
    assert [text for file in files for text in wrong_in(file)] == []


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
