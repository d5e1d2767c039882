"""Names that are made once and never again: they sort by time and are safe in every cloud."""

from __future__ import annotations

from typing import Final

from ulid import ULID

_TIME: Final = 10  # characters of a ULID that tell its time


def build_id() -> str:
    """A new build id, `b-<lower-case ULID>`."""
    return f"b-{str(ULID()).lower()}"


def instance_id() -> str:
    """A new instance id, `vm-<lower-case ULID>`: the VM's name and its idempotency token."""
    return f"vm-{str(ULID()).lower()}"


def engine_id() -> str:
    """A new engine id, `e-<lower-case ULID>`: who holds a claim."""
    return f"e-{str(ULID()).lower()}"


def sweep_id() -> str:
    """A new sweep id, `s-<lower-case ULID>`: two sightings that count have two of these."""
    return f"s-{str(ULID()).lower()}"


def image_id() -> str:
    """A new image id, `im-<lower-case ULID>`: one image made in a cloud."""
    return f"im-{str(ULID()).lower()}"


def instances_since(moment: float) -> str:
    """Return a text that sorts before the ids of all instances made from this moment on."""
    return f"vm-{str(ULID.from_timestamp(max(moment, 0.0)))[:_TIME].lower()}"
