"""Images made in clouds. A row is written before its builder is asked for, and is open until that
builder is gone, whatever became of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from vmrunner.errors import Conflict, NotFound
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.database import Database
from vmrunner.ledger.row_reading import Readable, readable
from vmrunner.ledger.sql import or_, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import IMAGES
from vmrunner.model import ImageState, MadeImage, Scope

_m = IMAGES.c
_LAST: Final = "~"  # sorts after all that an id is made of

_INSERT = inserts(IMAGES)
_LIST = Prepared(lambda: select(*codec.IMAGE).order_by(_m.id.desc()))
_OPEN = Prepared(lambda: select(*codec.IMAGE).where(_m.closed_at.is_(None)).order_by(_m.id))
_FIND = Prepared(
    lambda: (
        select(*codec.IMAGE)
        .where((_m.id >= arg("low")) & (_m.id < arg("high")) | (_m.ref == arg("ref")))
        .order_by(_m.id)
        .limit(4)
    )
)
_SCOPES = Prepared(
    lambda: (
        select(_m.scope)
        .where(
            _m.provider == arg("provider"),
            or_(_m.closed_at.is_(None), _m.state == ImageState.READY.value),
        )
        .distinct()
    )
)
_END = Prepared(
    lambda: (
        update(IMAGES)
        .where(_m.id == arg("id"), _m.state == ImageState.BUILDING.value)
        .values(
            state=arg("state"), ref=arg("ref"), snapshots=arg("snapshots"), message=arg("message")
        )
    )
)
_LEFT = Prepared(
    lambda: (
        update(IMAGES)
        .where(_m.id == arg("id"), _m.state == ImageState.FAILED.value)
        .values(ref=arg("ref"), snapshots=arg("snapshots"))
    )
)
_CLOSE = Prepared(
    lambda: (
        update(IMAGES)
        .where(_m.id == arg("id"), _m.closed_at.is_(None))
        .values(closed_at=arg("now"))
    )
)
_RETIRE = Prepared(
    lambda: (
        update(IMAGES)
        .where(_m.ref == arg("ref"), _m.provider == arg("provider"))
        .values(state=ImageState.RETIRED.value, promoted_at=None)
    )
)
_DEMOTE = Prepared(
    lambda: update(IMAGES).where(_m.provider == arg("provider")).values(promoted_at=None)
)
_PROMOTE = Prepared(
    lambda: (
        update(IMAGES)
        .where(_m.ref == arg("ref"), _m.provider == arg("provider"))
        .values(promoted_at=arg("now"))
    )
)


class Images:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, image: MadeImage) -> None:
        """Write the intent: after this its builder may be asked for."""
        row = codec.image_values(image)
        self._database.write(lambda c: _INSERT(c, **row))

    def ready(self, image_id: str, ref: str, snapshots: Sequence[str]) -> None:
        """Record that the image is there. Does nothing when that, or the contrary, was said
        before."""
        self._end(image_id, ImageState.READY, ref=ref, snapshots=snapshots)

    def fail(self, image_id: str, message: str) -> None:
        """Record that the image never came to be. Does nothing when that, or the contrary, was said
        before."""
        self._end(image_id, ImageState.FAILED, message=message)

    def record_leftovers(self, image_id: str, ref: str | None, snapshots: Sequence[str]) -> None:
        """Record what a failed image left in the cloud, before that is deleted. `ref` None: nothing
        is left any more. Does nothing when the image did not fail."""
        names = codec.list_text(snapshots)
        self._database.write(lambda c: _LEFT(c, id=image_id, ref=ref, snapshots=names))

    def close(self, image_id: str, now: float) -> None:
        """Close the row: its builder is gone, and nothing is left of an image that failed."""
        self._database.write(lambda c: _CLOSE(c, id=image_id, now=now))

    def retire(self, provider: str, ref: str) -> None:
        """Record that an image was deleted. Does nothing when the ledger never knew it."""
        self._database.write(lambda c: _RETIRE(c, provider=provider, ref=ref))

    def promote(self, provider: str, ref: str, now: float) -> None:
        """Mark this image of the provider as the one that builds use."""

        def work(connection: Any) -> None:
            _DEMOTE(connection, provider=provider)
            _PROMOTE(connection, provider=provider, ref=ref, now=now)

        self._database.write(work)

    def list(self) -> Readable[MadeImage]:
        """Newest first."""
        return self._database.read(lambda c: readable(codec.image, _LIST(c).all()))

    def open(self) -> Readable[MadeImage]:
        """The images whose builder may be alive, oldest first."""
        return self._database.read(lambda c: readable(codec.image, _OPEN(c).all()))

    def find(self, word: str) -> MadeImage:
        """Find an image by id or the beginning of one, with or without its `im-`, or by the cloud's
        name. Raises NotFound, and Conflict when several begin so."""
        if not word:
            raise NotFound("an empty word names no image")
        low = word if word.startswith("im-") else f"im-{word}"
        rows = self._database.read(lambda c: _FIND(c, low=low, high=low + _LAST, ref=word).all())
        exact = [row for row in rows if low == row[0] or word in row[1:]]
        if not rows:
            raise NotFound(f"there is no image {word!r}", hint="vmrunner image ls lists all")
        if len(rows) > 1 and len(exact) != 1:
            some = ", ".join(row[0] for row in rows[:3])
            raise Conflict(f"several images begin with {word!r}: {some}", hint="write more of it")
        return codec.image((exact or rows)[0])

    def places(self, provider: str) -> frozenset[Scope]:
        """Return every scope in which this provider has an image, or may have a builder."""
        rows = self._database.read(lambda c: _SCOPES(c, provider=provider).all())
        return frozenset(Scope.parse(row[0]) for row in rows)

    def _end(
        self,
        image_id: str,
        state: ImageState,
        *,
        ref: str | None = None,
        snapshots: Sequence[str] = (),
        message: str = "",
    ) -> None:
        values = {"state": state.value, "ref": ref, "message": message}
        names = codec.list_text(snapshots)
        self._database.write(lambda c: _END(c, id=image_id, snapshots=names, **values))
