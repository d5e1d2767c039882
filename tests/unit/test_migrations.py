"""Rules for migrations, read in their sources: PostgreSQL runs them beside nodes, and nobody may
wait for as long as there are rows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from vmrunner.ledger import upgrade

#: Of before the tables were large; no node of theirs saw that somebody upgraded its ledger.
EARLIEST = {"0001", "0002", "0003", "0004", "0005", "0006"}
VERSIONS = Path(upgrade.__file__).parent / "migrations/versions"
#: What writes or reads each row of a table, or may.
LONG = {
    "alter_column", "batch_alter_table", "bulk_insert", "create_check_constraint",
    "create_exclude_constraint", "create_foreign_key", "create_primary_key",
    "create_unique_constraint", "get_bind", "get_context",
}  # fmt: skip
#: A name of a column stands in the catalogue alone; of sightings there are few.
QUICK = re.compile(r"INSERT INTO |ALTER TABLE \w+ RENAME COLUMN |UPDATE sightings ")


def faults(source: str) -> list[str]:
    """Return what a migration may not do, in words."""
    calls = sorted(
        (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)),
        key=lambda call: call.lineno,
    )
    found, tables, before_steps = list[str](), set[object](), list[str]()
    for call in calls:
        if not (isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)):
            continue
        name = call.func.attr
        constants = [arg.value if isinstance(arg, ast.Constant) else None for arg in call.args]
        if call.func.value.id == "steps":
            if before_steps:
                found.append(f"{before_steps[0]} before a step, which is done once")
        elif call.func.value.id == "op" and name != "f":
            before_steps.append(name)
            if name == "create_table":
                tables.add(constants[0])
            elif name == "create_index" and constants[1] not in tables:
                found.append("create_index of rows that there are: use steps.add_index")
            elif name == "execute" and not QUICK.match(str(constants[0])):
                found.append("execute: use steps.fill")
            elif name in LONG:
                found.append(f"{name}: it may go through all rows")
    return found


@pytest.mark.parametrize("version", sorted(set(upgrade.known()) - EARLIEST))
def test_no_migration_holds_up_those_beside_it(version: str) -> None:
    (path,) = VERSIONS.glob(f"{version}_*.py")
    assert not faults(path.read_text())


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('op.execute("UPDATE builds SET a = 0")', "use steps.fill"),
        ('op.execute(f"DELETE FROM {table}")', "use steps.fill"),
        ('op.create_index("i", "builds", ["a"])', "use steps.add_index"),
        ('op.alter_column("builds", "a", nullable=False)', "may go through all rows"),
        ('op.get_bind().execute("UPDATE builds SET a = 0")', "may go through all rows"),
        ('op.create_table("t")\nsteps.fill("builds", "a = 0", "b")', "before a step"),
    ],
)
def test_a_migration_that_takes_long_is_refused(source: str, fault: str) -> None:
    (found,) = faults(source)
    assert fault in found


def test_what_is_new_may_be_indexed_at_once() -> None:
    assert not faults('op.create_table("t")\nop.create_index("i", "t", ["a"])')
