"""Docstrings open with a noun or an imperative: no relative clause, no question, no "It …"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "vmrunner"
WRONG_OPENING = re.compile(
    r"(What|Whatever|Whether|Which|Who|Whom|Whose|Whoever|How|Why|When|Where|Of|Those|That"
    r"|Is|Are|Was|Were|Does|Did|Has|Can|Could|May|Must|Would|Should"
    r"|It|Its|There|By|As|From|In|On|At|For|With|Within|Without|Until|Before|After|If|Not)\b"
)
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# Packages whose docstrings are still to be rewritten. This list only ever gets shorter.
LATER = ("api", "cli", "config", "engine", "reaper", "runtime", "services")

# Docstrings that users read as descriptions in the published schema.
PUBLISHED = {
    "What a build may reach.",
    "Without a project nothing can be asked; without zones nothing is launched.",
    "Without subnets and security groups it looks, sweeps and deletes, and launches nothing.",
}


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, DEFINITIONS) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


def is_wrong(text: str) -> bool:
    first = re.split(r"\n\n|(?<=[.?!])\s", text, maxsplit=1)[0]
    return bool(WRONG_OPENING.match(text)) or first.endswith("?")


def test_docstrings_open_with_a_noun_or_an_imperative() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE.parent)}: {name}: {text.splitlines()[0]}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.relative_to(PACKAGE).parts[0] not in LATER
        for name, text in docstrings(file)
        if is_wrong(text) and text not in PUBLISHED
    ]
    assert wrong == []


def test_a_package_that_is_done_leaves_the_list() -> None:
    done = [
        package
        for package in LATER
        if not any(
            is_wrong(text)
            for file in (PACKAGE / package).rglob("*.py")
            for _, text in docstrings(file)
        )
    ]
    assert done == []


def test_the_rule_knows_right_from_wrong() -> None:
    assert is_wrong("What is asked.")
    assert is_wrong("Anybody there? Then wait.")
    assert not is_wrong("Return the build's state.")
    assert not is_wrong("Whatsoever")
