"""Names that are made once and never again: they sort by time and are safe in every cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ulid import ULID

_TIME: Final = 10  # characters of a ULID that tell its time


def canonical_uuid(text: str) -> str:
    """A UUID as it is written in tags: an id that differs in a letter's case is another's. Raises
    ValueError."""
    import uuid

    return str(uuid.UUID(text.strip()))


def build_id() -> str:
    """A new build id, `b-<lower-case ULID>`."""
    return f"b-{_new()}"


def instance_id() -> str:
    """A new instance id, `vm-<lower-case ULID>`: the VM's name and its idempotency token."""
    return f"vm-{_new()}"


def engine_id() -> str:
    """A new engine id, `e-<lower-case ULID>`: who holds a claim."""
    return f"e-{_new()}"


def sweep_id() -> str:
    """A new sweep id, `s-<lower-case ULID>`: two sightings that count have two of these."""
    return f"s-{_new()}"


def image_id() -> str:
    """A new image id, `im-<lower-case ULID>`: one image made in a cloud."""
    return f"im-{_new()}"


def token_id() -> str:
    """A new token id, `t-<lower-case ULID>`: one token of the HTTP API."""
    return f"t-{_new()}"


def event_id() -> str:
    """A new event id, `ev-<lower-case ULID>`: one thing that webhooks are told of."""
    return f"ev-{_new()}"


def cache_id() -> str:
    """A new cache id, `c-<lower-case ULID>`: what one build left to later ones."""
    return f"c-{_new()}"


def command_id() -> str:
    """A new command id, `x-<lower-case ULID>`: one command of a sandbox."""
    return f"x-{_new()}"


def instances_since(moment: float) -> str:
    """Return a text that sorts before the ids of all instances made from this moment on."""
    return f"vm-{str(_ulid().from_timestamp(max(moment, 0.0)))[:_TIME].lower()}"


def _new() -> str:
    return str(_ulid()()).lower()


def _ulid() -> type[ULID]:
    """Imported late: to know its version, it reads its own metadata."""
    from ulid import ULID

    return ULID
