"""The providers of a configuration, and those that it dropped, opened by what the scopes of their
rows tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import ledger_rows as rows
from vmrunner.errors import ConfigError
from vmrunner.model import Scope
from vmrunner.runtime import provider_set
from vmrunner.runtime.provider_set import ProviderSet

ZONES = [Scope("gce", "acme-ci", f"europe-west1-{letter}") for letter in "bc"]
OTHER = Scope("gce", "acme-old", "us-central1-a")
REGIONS = [Scope("ec2", "123456789012", region) for region in ("eu-west-1", "us-east-1")]


class StandIn:
    """Configured: providers by name, each with its scopes. Dropped: `old`, with rows in these."""

    def __init__(self, scopes: list[Scope], **configured: list[Scope]) -> None:
        open_rows = [rows.instance(str(n), "old", scope) for n, scope in enumerate(scopes)]
        no_images: Any = SimpleNamespace(open=list)
        self.ledger = SimpleNamespace(
            instances=SimpleNamespace(open=lambda: open_rows), images=no_images
        )
        kinds = {name: SimpleNamespace(kind=at[0].kind) for name, at in configured.items()}
        self.settings = SimpleNamespace(providers=kinds)
        self._configured = configured
        self._dropped = scopes
        self.opened: list[tuple[str, dict[str, Any]]] = []

    def provider(self, name: str) -> Any:
        if name == "broken":
            raise ConfigError("providers.broken: no credentials")
        return SimpleNamespace(name=name, scopes=frozenset(self._configured[name]))

    def open_kind(self, kind: str, name: str, options: dict[str, Any]) -> Any:
        """It reaches what its options say."""
        self.opened.append((kind, options))
        ours = [scope for scope in self._dropped if scope.kind == kind]
        if kind == "gce":
            ours = [scope for scope in ours if scope.account == options["project"]]
        return SimpleNamespace(name=name, scopes=frozenset(ours))


def former(app: StandIn) -> Any:
    given: Any = app.settings, lambda: app.ledger, app.provider, app.open_kind
    return ProviderSet(*given).get("old")


def test_what_a_kind_needs_is_taken_from_the_scopes() -> None:
    app = StandIn([*ZONES, OTHER, *REGIONS])
    assert former(app).scopes == {*ZONES, OTHER, *REGIONS}
    assert app.opened == [
        ("ec2", {"region": "eu-west-1"}),
        ("gce", {"project": "acme-ci"}),
        ("gce", {"project": "acme-old"}),
    ]


def test_who_verified_a_scope_under_another_name_comes_first() -> None:
    app = StandIn([*ZONES, OTHER], broken=ZONES, new=ZONES)
    found = former(app)
    assert [driver.name for driver in found.former] == ["new", "old"]
    assert app.opened == [("gce", {"project": "acme-old"})]


def test_a_vm_belongs_to_who_verified_its_scope() -> None:
    app = StandIn([], here=[OTHER], there=ZONES)
    given: Any = app.settings, lambda: app.ledger, app.provider, app.open_kind
    providers = ProviderSet(*given)
    assert providers.reaching("here", OTHER).name == "here"
    assert providers._drivers.keys() == {"here"}
    assert providers.reaching("here", ZONES[0]).name == "there"
    assert providers.reaching("here", REGIONS[0]).name == "here", "nobody's"


def test_scopes_that_nobody_reaches_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    app = StandIn(ZONES)
    nobody = SimpleNamespace(scopes=frozenset())
    monkeypatch.setattr(app, "open_kind", lambda *_: nobody)
    with pytest.raises(ConfigError, match=r"VMs of it are open in gce\|acme-ci\|europe-west1-b"):
        former(app)


def test_one_that_cannot_be_opened_hides_no_other() -> None:
    app = StandIn([], broken=ZONES, here=[OTHER])
    given: Any = app.settings, lambda: app.ledger, app.provider, app.open_kind
    found, broken = ProviderSet(*given).opened()
    assert (found.keys(), broken.keys()) == ({"here"}, {"broken"})
    assert ProviderSet(*given).all().keys() == {"here"}


def test_settings_that_cannot_be_used_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_set, "_FIXED", {})
    app = StandIn([], here=[OTHER])
    given: Any = app.settings, lambda: app.ledger, app.provider, app.open_kind
    providers = ProviderSet(*given)
    old = providers.all()
    kinds = {"broken": SimpleNamespace(kind="gce"), "here": SimpleNamespace(kind="ec2")}
    new: Any = SimpleNamespace(providers=kinds)
    with pytest.raises(ConfigError, match="no credentials"):
        providers.renew(new, old)
    assert providers.settings is given[0]
    assert providers.get("here") is old["here"]
