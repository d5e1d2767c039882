"""The delete of many things, in which no single one can save the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vmrunner.errors import ProviderError
from vmrunner.model import Fate, Outcome, Ref
from vmrunner.providers import Provider

log = logging.getLogger("vmrunner")


def delete_each(
    provider: Provider, refs: Sequence[Ref], *, force: bool = False
) -> dict[Ref, Outcome]:
    """An outcome for each. When the driver itself fails over a batch, it is halved until only the
    one that it cannot bear is left out; a cloud that does not answer is asked once."""
    if not refs:
        return {}
    try:
        outcomes = provider.delete(refs, force=force)
    except ProviderError as error:
        outcomes = {ref: Outcome(fate=Fate.FAILED, error=str(error)) for ref in refs}
    except Exception as error:  # a driver's bug
        if len(refs) > 1:
            half = len(refs) // 2
            first = delete_each(provider, refs[:half], force=force)
            return first | delete_each(provider, refs[half:], force=force)
        log.exception("delete of %s", refs[0].id)
        outcomes = {refs[0]: Outcome(fate=Fate.FAILED, error=f"{type(error).__name__}: {error}")}
    silent = Outcome(fate=Fate.FAILED, error="the driver told no outcome")
    return {ref: outcomes.get(ref, silent) for ref in refs}
