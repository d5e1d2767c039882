"""What becomes of the row of a template's VM that was never made, or not for sure."""

from __future__ import annotations

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.ledger_builds import ACCESS, template_launch
from vmrunner.errors import BadOrder, NoCapacity, ProviderError, Uncertain
from vmrunner.images.template_vms import TemplateVms
from vmrunner.model import Death, InstanceState, Ref


@pytest.mark.parametrize("error", [BadOrder, NoCapacity, Uncertain, ProviderError])
def test_what_the_provider_says_is_told(parts: EngineParts, error: type[ProviderError]) -> None:
    """A row of which nobody knows whether it has a VM stays open: the reaper looks for that."""

    def create() -> Ref:
        raise error("the disk is full")

    vms = TemplateVms(parts.ledger, parts.provider, "e-1", sleep=parts.clock.advance)
    order = template_launch(parts.ledger, "vm-1").order
    with pytest.raises(error, match="the disk is full"), vms.recorded(order, ACCESS, create):
        pass
    row = parts.ledger.instances.get("vm-1")
    never = error in (BadOrder, NoCapacity)
    assert (row.state, row.death) == (
        (InstanceState.GONE, Death.REFUSED) if never else (InstanceState.REQUESTED, None)
    )
