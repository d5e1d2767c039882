"""The tree in docs/architecture.md is the tree of vmrunner/: a module is in both or in neither."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
PACKAGE = ROOT / "vmrunner"
NAME = re.compile(r"\w+(?:\.py|/)")
PATH = re.compile(r"`([a-z_0-9]+/[\w/*.]+)`")


def on_the_page() -> set[str]:
    """Return the paths of the tree: a name's folders are the lines above it, indented less."""
    block = PAGE.read_text().split("```tree\n", 1)[1].split("```", 1)[0]
    found: list[str] = []
    folders: list[tuple[int, str]] = []
    for line in filter(str.strip, block.splitlines()):
        depth = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= depth:
            folders.pop()
        above = "".join(folder for _, folder in folders)
        for word in line.split():
            if not NAME.fullmatch(word):
                break
            found.append(above + word)
        if found[-1].endswith("/"):
            folders.append((depth, found[-1].removeprefix(above)))
    assert len(found) == len(set(found)), "a name is there twice"
    return set(found)


def in_the_tree() -> set[str]:
    """Return each module and each package; a package's own `__init__.py` is its line."""
    modules = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "versions"
    }
    packages = {
        f"{path.relative_to(PACKAGE)}/"
        for path in PACKAGE.rglob("*")
        if path.is_dir() and any(path.glob("*.py"))
    }
    return modules | packages | {"__init__.py"}


def test_the_page_shows_the_tree() -> None:
    page, tree = on_the_page(), in_the_tree()
    assert sorted(tree - page) == [], "missing on docs/architecture.md"
    assert sorted(page - tree) == [], "on docs/architecture.md, and not there"


def test_each_path_in_the_text_is_there() -> None:
    text = PAGE.read_text().split("```tree\n", 1)[0]
    assert [named for named in PATH.findall(text) if not is_there(named)] == []


def is_there(named: str) -> bool:
    return any(any(base.glob(named.rstrip("/"))) for base in (PACKAGE, ROOT))


def test_the_layers_are_those_of_the_contract() -> None:
    block = PAGE.read_text().split("## Who may import whom", 1)[1].split("```", 2)[1]
    project = (ROOT / "pyproject.toml").read_text()
    layers = re.search(r"^layers = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert layers is not None
    contract = re.findall(r'"([^"]+)"', layers.group(1))
    assert [line.replace(" · ", " | ") for line in block.split("\n") if line] == contract
