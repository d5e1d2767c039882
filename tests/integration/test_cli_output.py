"""What guests chose, such as a name, on its way to a terminal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Cli, script
from vmrunner.cli import output

EVIL = "\x1b]0;owned\x07\x9b2J\x7f\u202etxt.exe\u2028\udcff\U000e0041"


def harmless(out: bytes) -> bool:
    """Would a terminal only show it?"""
    return all(character.isprintable() or character == "\n" for character in out.decode())


def test_json_says_the_same_with_nothing_a_terminal_obeys() -> None:
    document: dict[str, Any] = {"name": EVIL, EVIL: ["é", "日本", "\U0001f600"]}
    for text in (output.json_text(document), output.json_envelope("x", [document])):
        assert harmless(text.encode())
        assert "é" in text
        assert "日本" in text
    assert json.loads(output.json_text(document)) == document
    assert json.loads(output.json_envelope("x", [document]))["items"] == [document]


def test_no_artifacts_name_reaches_a_terminal_as_it_is(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "\x1b]0;owned\x07\x9b2J\u202e"
    done = cli("run", "-a", "**", *script(f"artifact {name} x", "hex c29b324a0a"))
    build = done.last[3]
    for argv in (
        ("artifacts", "ls", build),
        ("artifacts", "ls", build, "-o", "json"),
        ("artifacts", "ls", build, "-o", "jsonl"),
        ("show", build),
        ("show", build, "-o", "json"),
        ("logs", build, "-o", "json"),
        ("logs", build, "-o", "jsonl"),
        ("ps", "-a", "-o", "wide"),
        ("run", "--dry-run", "-e", "A=\x9b2J", "-o", "json", "--", "\x1b[2J"),
        ("run", "--dry-run", "-e", "A=\x9b2J", "--", "\x1b[2J"),
    ):
        shown = cli(*argv)
        assert shown.code == 0, shown
        assert harmless(shown.out), (argv, shown.out)
        assert harmless(shown.err), (argv, shown.err)
    (item,) = cli("artifacts", "ls", build, "-o", "json").items
    assert item["path"] == name

    got = cli("artifacts", "get", build, "--to", "all")
    assert (got.out, b"has a control character: left out" in got.err) == (b"", True)
    assert harmless(got.err)
    for tty in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda tty=tty: tty)
        got = cli("artifacts", "get", build, name, "--to", "all")
        assert got.out.startswith(b"all/")
        assert harmless(got.out)
    assert (home / "all" / name).read_text() == "x"


def test_a_name_that_is_no_text_is_shown_and_copied(cli: Cli, home: Path) -> None:
    build = cli("run", *script("artifact a x")).last[3]
    (directory,) = (home / "data/vmrunner/artifacts").glob(f"{build}.*")
    raw = os.fsencode(directory / "a") + b"\xff"
    os.rename(directory / "a", raw)  # noqa: PTH104
    for form in ("table", "json", "jsonl"):
        assert cli("artifacts", "ls", build, "-o", form).code == 0
    assert cli("show", build, "-o", "json").items[0]["artifacts_back"][0]["path"] == "a\udcff"
    assert cli("artifacts", "get", build, "--to", "all").out == b"all/a\xff\n"


def test_an_artifact_on_a_terminal_gets_colours_only(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = cli("run", *script("artifact a x")).last[3]
    evil = b"\x1b[31mred\x1b[0m\x1b]0;owned\x07\x1b[2J\n"
    (directory,) = (home / "data/vmrunner/artifacts").glob(f"{build}.*")
    (directory / "a").write_bytes(evil)
    assert cli("artifacts", "get", build, "a", "--to", "-").out == evil
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli("artifacts", "get", build, "a", "--to", "-").out == b"\x1b[31mred\x1b[0m\n"
