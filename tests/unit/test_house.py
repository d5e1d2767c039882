"""What a reader is told must be there: links, test names, the places of planted bugs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.mutations import BUGS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    missing = [to for to in LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert missing == []


def test_each_promise_names_existing_tests_or_says_not_shown() -> None:
    text = (ROOT / "docs/guarantees.md").read_text()
    promises = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)[1:]
    assert [promise.split(".")[0] for promise in promises] == [str(n) for n in range(1, 10)]
    for promise in promises:
        named = TEST.findall(promise)
        assert named or "Not yet shown" in promise, promise.partition("\n")[0]
        for file, name in named:
            source = (ROOT / file).read_text()
            assert not name or f"def {name}(" in source, f"{file}::{name}"


def test_the_licence_is_whole() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert licence.lstrip().startswith("Apache License")
    assert "END OF TERMS AND CONDITIONS" in licence


def test_each_planted_bug_has_its_place() -> None:
    """A bug whose text has moved is planted nowhere."""
    moved = [b.name for b in BUGS if (ROOT / b.path).read_text().count(b.old) != 1]
    assert moved == []


def test_the_page_tells_how_many_bugs_are_planted() -> None:
    page = (ROOT / "docs/guarantees.md").read_text()
    assert f"`bench/mutations.py` plants {len(BUGS)} bugs" in page
