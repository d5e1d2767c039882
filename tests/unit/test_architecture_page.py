"""What docs/architecture.md names is there; its layers are those that are enforced."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
PACKAGE = ROOT / "vmrunner"
PATH = re.compile(r"`([a-z_0-9]+/[\w/*.]+)`")


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_each_path_in_the_text_is_there(page: Path) -> None:
    text = page.read_text()
    assert [named for named in PATH.findall(text) if not is_there(named)] == []


def test_each_feature_names_its_files() -> None:
    table = PAGE.read_text().split("## Features", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert [row for row in rows if len(PATH.findall(row)) < 2] == []


def test_the_page_of_modules_is_up_to_date() -> None:
    program = [sys.executable, str(ROOT / "scripts/tree"), "--check"]
    assert subprocess.run(program, check=False).returncode == 0, "run scripts/tree"


def is_there(named: str) -> bool:
    return any(any(base.glob(named.rstrip("/"))) for base in (PACKAGE, ROOT))


def test_the_layers_are_those_of_the_contract() -> None:
    block = PAGE.read_text().split("## Who may import whom", 1)[1].split("```", 2)[1]
    project = (ROOT / "pyproject.toml").read_text()
    layers = re.search(r"^layers = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert layers is not None
    contract = re.findall(r'"([^"]+)"', layers.group(1))
    assert [line.replace(" · ", " | ") for line in block.split("\n") if line] == contract
