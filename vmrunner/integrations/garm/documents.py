"""Answers to GARM that need neither configuration nor ledger."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Final

from vmrunner.config.forges import RunnerFields
from vmrunner.integrations.garm.provider import INTERFACES

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


def answer(command: str) -> str | None:
    """Return the answer to a command that asks what this is; None: it is another."""
    if command == "GetVersion":
        return f"v{version('vmrunner')}"
    if command == "GetSupportedInterfaceVersions":
        return json.dumps(INTERFACES)
    if command == "GetConfigJSONSchema":
        from vmrunner.config import sources

        return json.dumps(sources.schema())
    if command == "GetExtraSpecsJSONSchema":
        return json.dumps({"$schema": _DRAFT, **RunnerFields.model_json_schema()})
    return None
