"""EC2 for tests: credentials that mean nothing, and a provider at a local endpoint."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Final
from unittest import mock

KEY: Final = "AKIALOCALLOCALLOCAL0"

#: Nothing of the user's own, and no question to a metadata service.
ENVIRONMENT: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def credentials(**more: str) -> Iterator[None]:
    """While inside, the SDK's chain finds these, and no others."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    with mock.patch.dict(os.environ, {**kept, **ENVIRONMENT, **more}, clear=True):
        yield
