"""JSON Schemas of the documents, and of the pages that hold them: for `config schema --document`
and the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.model import BuildSpec
from vmrunner.services import document_types as types
from vmrunner.services.documents import SCHEMA_VERSION

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PageShape:
    """An envelope: its kind, the documents that stand in it, and what may stand beside them."""

    kind: str
    items: tuple[type, ...]
    beside: tuple[str, ...] = ()


_SUBMITTED: Final = ("next", "new", "warnings")
#: Pages by the names of their schemas; the first one of a kind is what the command line prints.
PAGES: Final[Mapping[str, PageShape]] = {
    "ActionPage": PageShape("action", (types.ActionDocument,)),
    "ArtifactPage": PageShape("artifact", (types.ArtifactDocument,)),
    "BackupPage": PageShape("backup", (types.BackupDocument,)),
    "BudgetPage": PageShape("budget", (types.BudgetDocument,)),
    "BuildPage": PageShape("build", (types.BuildDocument,), _SUBMITTED),
    "CachePage": PageShape("cache", (types.CacheDocument,)),
    "ChunkPage": PageShape("chunk", (types.ChunkDocument,)),
    "CommandPage": PageShape("command", (types.CommandDocument,)),
    "CommandNamePage": PageShape("command", (types.CommandNameDocument,)),
    "CommandOutputPage": PageShape("command_output", (types.CommandOutputDocument,)),
    "ConfigFilePage": PageShape("config_file", (types.ConfigFileDocument,)),
    "CostPage": PageShape("cost", (types.CostDocument,)),
    "DatabasePage": PageShape("database", (types.DatabaseDocument,)),
    "DryRunPage": PageShape("spec", (BuildSpec,)),
    "EndpointPage": PageShape("notify_endpoint", (types.EndpointDocument,)),
    "EventPage": PageShape("event", (types.EventDocument,)),
    "FilePage": PageShape("file", (types.FileDocument,)),
    "FindingPage": PageShape("finding", (types.FindingDocument,)),
    "FleetPage": PageShape(
        "instance", (types.InstanceDocument, types.StrayDocument), ("next", "unread")
    ),
    "GuardPartPage": PageShape("guard_part", (types.GuardPartDocument,)),
    "ImagePage": PageShape("image", (types.ImageDocument,)),
    "ImageVerdictPage": PageShape("image_verdict", (types.ImageVerdictDocument,)),
    "InstancePage": PageShape("instance", (types.InstanceDocument,)),
    "LatchPage": PageShape("latch", (types.LatchDocument,)),
    "LogLinePage": PageShape("log_line", (types.LogLineDocument,)),
    "LogSearchPage": PageShape("log_search", (types.LogSearchDocument,)),
    "LogSectionPage": PageShape("log_section", (types.LogSectionDocument,), ("ended",)),
    "LogWindowPage": PageShape("log_line", (types.LogLineDocument,), ("next",)),
    "NodePage": PageShape("node", (types.NodeDocument,)),
    "PathPage": PageShape("file", (types.PathDocument,)),
    "PoolPage": PageShape("pool", (types.PoolDocument,)),
    "RemovalPage": PageShape("removal", (types.RemovalDocument,)),
    "SandboxPage": PageShape("sandbox", (types.BuildDocument,), _SUBMITTED),
    "SealedPage": PageShape("sealed", (types.SealedDocument,)),
    "SettingPage": PageShape("setting", (types.SettingDocument,)),
    "SpecPage": PageShape("build_spec", (types.SpecDocument,), ("warnings",)),
    "SurvivorPage": PageShape("survivor", (types.SurvivorDocument,)),
    "TestsPage": PageShape("tests", (types.TestsDocument,)),
    "TokenPage": PageShape("token", (types.TokenDocument,)),
    "TrustedPage": PageShape("trusted", (types.TrustedDocument,)),
    "VersionPage": PageShape("version", (types.VersionDocument,)),
    "VerdictPage": PageShape("verdict", (types.VerdictDocument,), ("alarms", "unread")),
}
#: Answers without an envelope.
_BARE: Final = (
    types.DestroyDocument, types.DigestDocument, types.DrainingDocument,
    types.ExchangedTokenDocument, types.LeaseDocument, types.Problem,
)  # fmt: skip
#: Documents that have more in some places: to a reader one type, whose fields may be missing.
_VARIANTS: Final[Mapping[type, tuple[type, ...]]] = {
    types.BuildDocument: (
        types.ListedBuildDocument, types.EndedBuildDocument, types.ResultDocument,
        types.ShownBuildDocument,
    ),
    types.InstanceDocument: (types.SeenInstanceDocument,),
    BuildSpec: (types.DryRunDocument,),
}  # fmt: skip
_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
_BESIDE: Final[Mapping[str, Schema]] = {
    "next": {"type": "string", "description": "There is more: give it back as `after`."},
    "new": {"type": "boolean", "description": "False: it was there, by its idempotency key."},
    "ended": {"type": "boolean", "description": "True: no line will follow."},
    "warnings": _TEXTS,
    "alarms": _TEXTS,
    "unread": {**_TEXTS, "description": "What could not be read of the clouds."},
}
_REF: Final = "#/$defs/"


@cache
def _definitions() -> Mapping[str, Schema]:
    """The schemas of all documents and pages, by their names."""
    wanted = {item for page in PAGES.values() for item in page.items} | set(_BARE)
    wanted |= {variant for variants in _VARIANTS.values() for variant in variants}
    adapters: list[Any] = [(kind, "serialization", TypeAdapter(kind)) for kind in wanted]
    _, made = TypeAdapter.json_schemas(adapters, ref_template=_REF + "{model}")
    found: dict[str, Schema] = {name: untitled(schema) for name, schema in made["$defs"].items()}
    for kind, variants in _VARIANTS.items():
        others = [found.pop(variant.__name__) for variant in variants]
        found[kind.__name__] = _merged(found[kind.__name__], *others)
    return found | {name: _page(page) for name, page in PAGES.items()}


def untitled(schema: Schema) -> Schema:
    """A schema without the titles that its fields' names made."""
    fields = {
        name: {key: value for key, value in field.items() if key != "title"}
        for name, field in schema.get("properties", {}).items()
    }
    return {**schema, "properties": fields} if fields else schema


def _merged(base: Schema, *variants: Schema) -> Schema:
    """The schema of a document that has at least what `base` requires. Of a field that only some
    have, one that may be null is the wider one."""
    fields: Schema = {}
    for variant in variants:
        for name, field in variant["properties"].items():
            fields[name] = field if "anyOf" in field else fields.get(name, field)
    return base | {"properties": fields | base["properties"]}


def _page(page: PageShape) -> Schema:
    items: list[Schema] = [{"$ref": _REF + item.__name__} for item in page.items]
    return {
        "type": "object",
        "description": f"Documents of the kind `{page.kind}`.",
        "required": ["schema_version", "kind", "items"],
        "properties": {
            "schema_version": {"type": "integer", "const": SCHEMA_VERSION},
            "kind": {"type": "string", "const": page.kind},
            "items": {"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": items}},
            **{name: _BESIDE[name] for name in page.beside},
        },
    }


def components(names: set[str], ref: str) -> dict[str, Schema]:
    """The schemas of these names and of all that they refer to, which is found at `ref`."""
    reached: dict[str, Schema] = {}
    pending = sorted(names)
    while pending:
        name = pending.pop()
        if name not in reached:
            text = json.dumps(_definitions()[name])
            pending += re.findall(rf'"{re.escape(_REF)}(\w+)"', text)
            reached[name] = json.loads(text.replace(f'"{_REF}', f'"{ref}'))
    return dict(sorted(reached.items()))


def schema(kind: str) -> Schema:
    """The schema of what `-o json` prints, and of each line of `-o jsonl`. Raises ConfigError."""
    name, page = next(((n, page) for n, page in PAGES.items() if page.kind == kind), ("", None))
    if page is None:
        kinds = sorted({page.kind for page in PAGES.values()})
        near = units.nearest(kind, kinds)
        hint = f"did you mean {near!r}? " if near else ""
        raise ConfigError(
            f"document: there is no {kind!r}", hint=f"{hint}one of: {', '.join(kinds)}"
        )
    names = [name, *(item.__name__ for item in page.items)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "description": f"`-o json` prints a {name}; each line of `-o jsonl` is one of its items.",
        "anyOf": [{"$ref": _REF + name} for name in names],
        "$defs": components(set(names), _REF),
    }
