"""Documents held against their schemas, in which nothing else may stand than what they tell."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema_rs

from vmrunner.services import document_schemas

#: Kinds that `checked` has seen.
SEEN: set[str] = set()


def closed(schema: Any) -> Any:
    """The same schema, without room for fields that it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        found.setdefault("additionalProperties", False)
    return found


@cache
def _validator(kind: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(closed(document_schemas.schema(kind)), validate_formats=True)


def checked(document: Any, kind: str | None = None) -> Any:
    """The same document, which is as its schema tells. `kind`: of one without its envelope."""
    found = kind or document["kind"]
    error = next(_validator(found).iter_errors(document), None)
    assert error is None, f"{found}: {error}\n{document}"
    if kind or document["items"]:
        SEEN.add(found)
    return document
