"""docs/configuration.md shows each key that a configuration may have, and no other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from vmrunner.config.settings import Settings

PAGE = Path(__file__).parents[3] / "docs/configuration.md"
FILE = PAGE.read_text().split("```toml\ninstallation", 1)[1].split("\n```", 1)[0]
TEXT = f"installation{FILE}"
SCHEMA = Settings.model_json_schema()
#: A job's options, which the page of the command line has.
OPTIONS = "build"


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The definition that a schema's node refers to, itself, or by one of its alternatives."""
    while True:
        alternatives = [*node.get("anyOf", ()), *node.get("allOf", ())]
        tables = [found for found in alternatives if "$ref" in found or "items" in found]
        if "$ref" in node:
            node = SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]]
        elif "items" in node:
            node = node["items"]
        elif tables:
            node = tables[0]
        else:
            return node


def keys(node: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, value in resolved(node).get("properties", {}).items():
        yield f"{path}{name}"
        if name != OPTIONS:
            yield from keys(value, f"{path}{name}.")


def shown(table: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, value in table.items():
        yield f"{path}{name}"
        tables = value if isinstance(value, list) else [value]
        for inner in (found for found in tables if isinstance(found, dict) and name != OPTIONS):
            yield from shown(inner, f"{path}{name}.")


def block(table: str) -> str:
    """The lines of the page's file about a table: those below its header, comments included."""
    parts = re.split(r"^\[+([\w.]+)\]+", TEXT, flags=re.MULTILINE)
    blocks = dict(zip(["", *parts[1::2]], parts[::2], strict=True))
    return blocks.get(table, "") or block(table.rpartition(".")[0])


KEYS = sorted({*keys(SCHEMA, "")} - {"providers", "pools"})


def test_each_key_is_on_the_page() -> None:
    assert [key for key in KEYS if not is_on_the_page(key)] == []


def is_on_the_page(key: str) -> bool:
    # Rules for people have the keys of those for jobs, says the page.
    key = key.replace("server.login.rules.", "server.oidc.rules.")
    table, _, name = key.rpartition(".")
    return f"[{key}]" in TEXT or bool(re.search(rf"\b{name}\b", block(table)))


@pytest.mark.parametrize("kind", ["qemu", "ec2", "gce", "azure"])
def test_each_key_of_a_provider_is_on_the_page(kind: str) -> None:
    tables = tomllib.loads(TEXT)["providers"].values()
    on_page = next({*table} for table in tables if table["kind"] == kind)
    assert on_page == {*provider_keys(kind)}


def provider_keys(kind: str) -> Mapping[str, Any]:
    tables = (found.get("properties", {}) for found in SCHEMA["$defs"].values())
    return next(found for found in tables if found.get("kind", {}).get("const") == kind)


def test_each_key_of_a_pool_is_on_the_page() -> None:
    words = {*re.findall(r"\w+", block("pools.fast"))}
    assert {*SCHEMA["$defs"]["PoolSettings"]["properties"]} <= words


def test_the_page_shows_no_other_key() -> None:
    tables = tomllib.loads(TEXT)
    open_tables = ("providers", "pools", "match", "labels", "fallback", "flavors", "allow")
    found = {*shown(tables, "")}
    closed = {key for key in found if not {*key.split(".")[:-1]} & {*open_tables}}
    assert closed - {"providers", "pools"} <= {*KEYS}
