"""Findings of `doctor` and `image verify`: one line each, with its fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vmrunner.cli import exit_codes, output
from vmrunner.cli.output import Column, Format, ListView
from vmrunner.model import Finding, Level
from vmrunner.services.documents import finding_document

_COLOURS: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}


def show_findings(findings: Sequence[Finding], form: Format) -> int:
    """Print them; FAILED when one is an error."""
    output.show(_VIEW, findings, form)
    if form in (Format.TABLE, Format.WIDE):
        fixes: dict[str, list[str]] = {}
        for finding in findings:
            if finding.fix and finding.level is not Level.OK:
                fixes.setdefault(finding.fix, []).append(finding.check)
        for fix, checks in fixes.items():
            output.say(f"{', '.join(checks)}: {fix}")
    worst = any(finding.level is Level.ERROR for finding in findings)
    return exit_codes.FAILED if worst else exit_codes.OK


_VIEW: Final[ListView[Finding]] = ListView(
    kind="finding",
    columns=(
        Column("level", lambda f: f.level.value, colour=lambda f: _COLOURS[f.level]),
        Column("check", lambda f: f.check),
        Column("message", lambda f: f.message),
    ),
    document=finding_document,
)
