"""Images that were made in a cloud, from the intent on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmrunner.model.cloud import Scope
from vmrunner.model.money import UNKNOWN_RATE, Rate


class ImageState(StrEnum):
    """State of an image. It never goes back."""

    BUILDING = "building"  # the row is written; its builder may be alive
    READY = "ready"  # it is there, as a candidate or promoted
    FAILED = "failed"  # it never came to be; `ref` is what is left of it, until that is deleted
    RETIRED = "retired"  # it was deleted


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeImage:
    """One image in the ledger. `ref` is the cloud's name of it: an AMI's id, or a link without the
    host. Times are epoch seconds; past `deadline` its builder must be dead."""

    id: str
    provider: str
    scope: Scope  # where its builder runs
    name: str  # in the cloud
    recipe: str
    hash: str  # of the recipe and all that goes in
    builder: str  # the instance id on the builder's tags
    state: ImageState
    created_at: float
    deadline: float
    ref: str | None = None
    snapshots: tuple[str, ...] = ()
    promoted_at: float | None = None
    closed_at: float | None = None  # when its builder was seen gone
    message: str = ""
    rate: Rate = UNKNOWN_RATE  # of its builder, as it was when that was asked for
