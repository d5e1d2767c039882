"""Limits of the API, by its own pages and sources. A line needs a test that a client which ignores
it fails: `localclouds/tests/test_localkube_limits.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmrunner_localclouds.common.vendor_limits import NOT_READ, VendorLimit

_NAMES: Final = "https://kubernetes.io/docs/concepts/overview/working-with-objects/names/"
_LABELS: Final = "https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"
_SECRETS: Final = "https://kubernetes.io/docs/concepts/configuration/secret/"
_CHUNKS: Final = "https://kubernetes.io/docs/reference/using-api/api-concepts/"
_CODE: Final = "https://github.com/kubernetes/kubernetes/blob/v1.34.2/staging/src/k8s.io/"
_USER_DATA: Final = "https://kubevirt.io/user-guide/user_workloads/startup_scripts/"

LIMITS: Final[Mapping[str, VendorLimit]] = {
    "characters of a name": VendorLimit(253, _NAMES),
    "characters of a namespace's name": VendorLimit(63, _NAMES),
    "characters of a label's value": VendorLimit(63, _LABELS),
    "characters of a Job's name": VendorLimit(63, _NAMES, NOT_READ),
    "bytes of a secret": VendorLimit(1024 * 1024, _SECRETS),
    "bytes of all annotations": VendorLimit(
        256 * 1024, _CODE + "apimachinery/pkg/api/validation/objectmeta.go"
    ),
    "bytes of a request": VendorLimit(
        3 * 1024 * 1024, _CODE + "apiserver/pkg/server/config.go", NOT_READ
    ),
    "seconds that a page's token lives": VendorLimit(300, _CHUNKS),
    "bytes of a VMI's plain user-data": VendorLimit(2048, _USER_DATA),
}


def limit(name: str) -> float:
    return LIMITS[name].value
