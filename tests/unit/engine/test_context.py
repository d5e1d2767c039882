"""What an engine's context answers for."""

from __future__ import annotations

from typing import Any

from tests.support import ledger_rows as rows
from vmrunner.engine.context import EngineContext, EngineLimits
from vmrunner.model import Scope

HERE, ELSEWHERE, ANOTHER = rows.SCOPE, Scope("fake", "b", "z"), Scope("fake", "c", "z")


class Counting:
    """A provider that counts how often it is asked where it acts: in a cloud that may be a call."""

    reads = 0

    def __init__(self, scope: Scope = HERE) -> None:
        self.scope = scope

    @property
    def scopes(self) -> frozenset[Scope]:
        self.reads += 1
        return frozenset((self.scope,))


def test_each_provider_with_rows_is_asked_once_and_no_other() -> None:
    """A row whose provider has another name now, or whose name is another account's, is whoever's
    verified its scope."""
    providers: Any = {"local": Counting(), "cloud": Counting(ANOTHER)}
    unused: Any = None
    context = EngineContext(
        id="e-1",
        ledger=unused,
        providers=providers,
        limits=EngineLimits(),
        paths=unused,
        orders=unused,
        create_threads=unused,
        change_threads=unused,
        reap_threads=unused,
        delete_threads=unused,
        answers=unused,
        wake=unused,
    )
    here = [
        rows.instance("1", "local"),
        rows.instance("2", "local", ELSEWHERE),
        rows.instance("3", "gone"),
        rows.instance("4", "local"),
        rows.instance("5", "local", ANOTHER),
    ]
    found = [(row.id, row.provider) for row in context.reached(iter(here))]
    assert found == [("1", "local"), ("3", "local"), ("4", "local"), ("5", "cloud")]
    assert (providers["local"].reads, providers["cloud"].reads) == (1, 1)
    assert context.reached([here[0]]) == [here[0]]
    assert providers["cloud"].reads == 1, "its own provider has it"
    by_row = {row.id: context.provider_of(row) for row in here}
    assert by_row == {
        **dict.fromkeys("134", providers["local"]),
        "2": None,
        "5": providers["cloud"],
    }, "the same answer"
