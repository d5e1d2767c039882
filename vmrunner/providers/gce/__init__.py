"""Google's Compute Engine.

- port and configuration: `provider.py`, `options.py`, `doctor.py`
- the SDK, narrowed to what is called: `client.py`; its errors in our words: `error_codes.py`
- a launch: `catalog.py` (image, network, machine types), `create_request.py`, `create.py`,
  `operations.py`
- what is shown: `describe.py`, `sweep.py`, `resources.py` (in our words), `labels.py`
- the end: `delete.py`, `guard.py` (whether one is in the project)
- safety: `identity.py` (which project), `permissions.py` (the right to delete), `isolation.py`
  (builds do not reach each other)
- images of ours: `images.py`

google-cloud-compute is imported only when a provider is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmrunner.providers.gce.provider import GceProvider


def open(  # noqa: A001 - the name that the registry of providers calls
    name: str, *, installation: str, used: Sequence[str] = (), **options: Any
) -> GceProvider:
    """The provider called `name`. `used`: zones in which it ever launched. The other `options` are
    the fields of `options.Options`. Nothing is asked of Google yet."""
    from vmrunner.providers.gce.options import GceOptions
    from vmrunner.providers.gce.provider import GceProvider

    for field in ("zones", "machine_types", "network_tags"):
        if field in options:
            options[field] = tuple(options[field])
    return GceProvider(
        GceOptions(name=name, installation=installation, used=tuple(used), **options)
    )
