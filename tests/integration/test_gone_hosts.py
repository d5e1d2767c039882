"""The word of an operator that a VM is gone with its host."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.support.command_line import Cli
from tests.support.ledger_builds import started
from vmrunner.errors import Conflict
from vmrunner.ledger import Ledger
from vmrunner.lib.process import current
from vmrunner.model import BuildState, InstanceState, Level, Scope
from vmrunner.services import destroy, doctor

ELSEWHERE = Scope("fake", "host-b", "state")


class Providers:
    """Here is `reach`."""

    def __init__(self, reach: Scope) -> None:
        self.scopes = frozenset({reach})

    def reaching(self, *_: object) -> Providers:
        return self


def given_up(ledger: Ledger, reach: Scope = ELSEWHERE, beats: bool = False) -> Any:
    providers: Any = Providers(reach)
    row = ledger.instances.get("vm-1")

    def sleep(_: float) -> None:
        if beats:
            ledger.engines.beat("e-1", 105.0)

    return destroy.give_up(ledger, providers, row, by="ops", sleep=sleep)


def joined(ledger: Ledger) -> None:
    started(ledger)
    ledger.engines.join("e-1", current(), "serve", 100.0)


def test_a_word_closes_the_row_and_frees_the_build(ledger: Ledger) -> None:
    joined(ledger)
    assert given_up(ledger).result is destroy.DestroyResult.GONE
    row = ledger.instances.get("vm-1")
    assert (row.state, row.message) == (InstanceState.GONE, "ops says that it is gone")
    assert ledger.builds.get("b-1").state is not BuildState.FINISHED, "an engine decides of it"
    assert given_up(ledger).result is destroy.DestroyResult.GONE_BEFORE


def test_a_word_about_the_living_is_refused(ledger: Ledger) -> None:
    joined(ledger)
    with pytest.raises(Conflict, match="e-1, which lives"):
        given_up(ledger, beats=True)
    row = ledger.instances.get("vm-1")
    with pytest.raises(Conflict, match="within reach"):
        given_up(ledger, reach=row.scope)
    assert ledger.instances.get("vm-1").state is not InstanceState.GONE


def test_the_command_says_what_it_is_for(cli: Cli) -> None:
    done = cli("vm", "destroy", "--gone", "--all-expired")
    assert b"--gone is of VMs that you name" in done.err
    assert b"gone with their host" in cli("vm", "destroy", "--help").out


# --- cloned hosts ---------------------------------------------------------------------------------


def test_doctor_names_hosts_of_one_machine_id(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of them it runs on; a host that has booted since is none."""
    monkeypatch.setattr(doctor.background, "one_host", lambda _: False)
    here = current()
    ledger.engines.join("e-1", here, "serve", time.time())
    ledger.engines.join("e-0", replace(here, boot="before"), "serve", time.time() - 3600.0)
    assert not list(doctor.clones(ledger))
    ledger.engines.join("e-2", replace(here, boot="elsewhere"), "serve", time.time())
    (found,) = doctor.clones(ledger)
    assert (found.level, "which lives" in found.message) == (Level.ERROR, True)
    assert "systemd-machine-id-setup" in (found.fix or "")
