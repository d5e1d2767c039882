"""A driver that was written for a former port goes on: what came to the port since has defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.drivers import driven
from vmrunner.core.boxes import DOCKER
from vmrunner.errors import BadOrder
from vmrunner.model import AllowList, Network, Spec, Trait
from vmrunner.providers import capabilities, registry
from vmrunner.providers.port import LookPace
from vmrunner.providers.retired_providers import RetiredProvider, pace_at


def test_what_a_former_driver_does_not_tell_has_defaults(tmp_path: Path) -> None:
    with driven("former", tmp_path) as driver:
        provider = driver.open()
        (scope,) = provider.scopes
        assert pace_at(provider, scope) == LookPace()
        assert capabilities.box(provider) is DOCKER
        assert capabilities.offers(provider, Spec(network=Network.NONE))
        rooted = Spec(network=Network.NONE, needs=frozenset({Trait.DOCKER}))
        for spec in (rooted, Spec(network=AllowList(("packages.example.org",)))):
            with pytest.raises(BadOrder):
                capabilities.offers(provider, spec)
        described = registry.drivers()["former"]
        assert (described.names, described.units, described.host_bound) == (True, False, False)


def test_a_former_driver_can_be_retired(tmp_path: Path) -> None:
    """As when the configuration drops its provider while a VM lives."""
    with driven("former", tmp_path) as driver:
        provider = driver.open()
        retired = RetiredProvider("there", [provider], None)
        assert retired.scopes == provider.scopes
        assert not retired.holds_no_network
        assert [page.scope for page in retired.sweep()] == list(provider.scopes)
