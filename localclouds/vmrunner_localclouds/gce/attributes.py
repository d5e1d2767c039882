"""Labels, metadata and tags: what the service refuses of them."""

from __future__ import annotations

import re
from typing import Final

from vmrunner_localclouds.gce import fixtures
from vmrunner_localclouds.gce.api_error import invalid
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.vendor_limits import LIMITS

LABELS: Final = int(LIMITS["labels of a resource"].value)
_VALUE: Final = int(LIMITS["bytes of a metadata value"].value)
_NETWORK_TAGS: Final = int(LIMITS["network tags of a VM"].value)
_TAG: Final = int(LIMITS["characters of a network tag"].value)
_METADATA: Final = int(LIMITS["bytes of all metadata"].value)
# International letters are letters that have no upper case, or are lower.
_KEY_MOST: Final = int(LIMITS["characters of a label's key"].value)
_VALUE_MOST: Final = int(LIMITS["characters of a label's value"].value)
_KEY: Final = re.compile(rf"(?=[^\W\d_])[-_\w]{{1,{_KEY_MOST}}}")
_LABEL: Final = re.compile(rf"[-_\w]{{0,{_VALUE_MOST}}}")


def check_labels(labels: Json, path: str) -> None:
    if len(labels) > LABELS:
        raise invalid(path, "", f"Number of labels exceeds {LABELS}.")
    for key, value in labels.items():
        if not _KEY.fullmatch(key) or key != key.lower():
            text = f"Label key '{key}' violates format constraints. "
            text += "The key must start with a lowercase letter and can only contain lowercase "
            text += "letters, numeric characters, underscores and dashes, at most 63 characters."
            raise invalid(path, "", text)
        if not _LABEL.fullmatch(value) or value != value.lower():
            text = f"Label value '{value}' violates format constraints. "
            text += "The value can only contain lowercase letters, numeric characters, "
            text += "underscores and dashes, at most 63 characters."
            raise invalid(path, "", text)


def check_metadata(metadata: Json, path: str) -> None:
    items = metadata.get("items", [])
    keys = [item.get("key", "") for item in items]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise invalid(path, "", f"Duplicate metadata keys: {', '.join(sorted(twice))}.")
    total = 0
    for number, item in enumerate(items):
        size = len(item.get("value", "").encode())
        if "key" not in item:
            raise invalid(f"{path}.items[{number}].key", "", "It is required.")
        if size > _VALUE:
            where = f"{path}.items[{number}].value"
            raise invalid(where, "", f"The value has {size} bytes; the limit is {_VALUE}.")
        total += size + len(item["key"])
    if total >= _METADATA:  # "must be less than"
        raise invalid(path, "", f"Metadata has {total} bytes; it must have less than {_METADATA}.")


def tagged(tags: Json) -> Json:
    """Network tags, as an answer has them."""
    items = tags.get("items", [])
    if len(items) > _NETWORK_TAGS:
        raise invalid("resource.tags.items", "", f"At most {_NETWORK_TAGS} tags.")
    for item in items:
        if len(item) > _TAG or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", item):
            text = f"A tag has 1 to {_TAG} lowercase letters, digits and dashes."
            raise invalid("resource.tags.items", item, text)
    return {"fingerprint": fixtures.fingerprint(), **({"items": items} if items else {})}
