"""Images, as a provider whose cloud keeps them shows them: made by Packer, told by their tags.

An image lasts, so none of the tags that say "ours, until then" counts on it: its maker is in a tag
of its own (`image-of`), and no reaper, guard or audit takes it, or its snapshots, for a VM's.

Until its build has finished it, an image has a mark (`finish-by`), and with that alone a sweep
shows it. To finish or promote it takes that away. Images that were made before there was such a
mark never had one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, runtime_checkable

from vmrunner.model import TAG, Offer, Order, Power, Ref, Resource, Role, Scope

OWNER: Final = f"{TAG}image-of"  # the installation that made it
IMAGE: Final = f"{TAG}image"  # its row in that one's ledger
RECIPE: Final = f"{TAG}recipe"
HASH: Final = f"{TAG}recipe-hash"
SUPERVISOR: Final = f"{TAG}supervisor"
CREATED: Final = f"{TAG}created"
#: When it became the one that builds get. The latest wins, before any that has none.
PROMOTED: Final = f"{TAG}promoted"
#: Until then, in epoch seconds, its build may finish it. Past that it is what a build left.
FINISH_BY: Final = f"{TAG}finish-by"
BUILDER: Final = f"{TAG}builder"  # its instance id
#: So long after its builder's deadline an image may still be finished: Packer is told to clean up
#: for five minutes, and then it is asked what it made.
_FINISHING: Final = 900.0

#: What Compute Engine takes, the strictest: letters, digits and hyphens, at most 63.
_NAME: Final = 63


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRequest:
    """An image to be made. `supervisor`: a digest of the program that runs builds in it."""

    image: str  # its row's id
    builder: str  # the builder's instance id
    installation: str
    generation: str
    recipe: str
    hash: str
    supervisor: str
    created: float  # epoch seconds
    deadline: float  # of its builder
    max_ttl: float  # the limit of its life

    @property
    def name(self) -> str:
        """The image's name in the cloud: `vmrunner-RECIPE-HASH-TIME-ID`, with the end of the row's
        id. It is this build's alone: two that begin in the same second have two names."""
        when = f"{datetime.fromtimestamp(self.created, UTC):%Y%m%d%H%M%S}"
        tail = f"-{self.hash[:8]}-{when}-{self.image[-6:]}"
        words = self.recipe.replace(".", "-").replace("_", "-")
        return f"vmrunner-{words[: _NAME - len('vmrunner-') - len(tail)]}{tail}"

    @property
    def finish_by(self) -> float:
        return self.deadline + _FINISHING

    @property
    def tags(self) -> dict[str, str]:
        """The image's, and its snapshots'."""
        return {
            OWNER: self.installation,
            IMAGE: self.image,
            RECIPE: self.recipe,
            HASH: self.hash,
            SUPERVISOR: self.supervisor,
            CREATED: str(int(self.created)),
            BUILDER: self.builder,
            FINISH_BY: str(int(self.finish_by)),
        }

    def order(self, scope: Scope, machine_type: str) -> Order:
        """Return the order from which the builder's tags are made, as those of builds are."""
        return Order(
            instance=self.builder,
            build=self.image,
            installation=self.installation,
            generation=self.generation,
            role=Role.IMAGE,
            offer=Offer(scope=scope, machine_type=machine_type, place=scope.place),
            deadline=self.deadline,
            user_data=b"",
            max_ttl=self.max_ttl,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BuilderSpec:
    """The place and way in which Packer makes an image: the source of its templates, their
    variables, and what its environment must say. `stages`: how the plugin's words begin that tell
    of what takes a while. `died`: what to do where the plugin died. `prepare`: makes what must be
    there before the builder, lasts and bills nothing; again it does nothing. Raises
    `ProviderError`."""

    source: str
    offer: Offer
    variables: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    died: str = ""
    prepare: Callable[[], None] = lambda: None

    @property
    def scope(self) -> Scope:
        return self.offer.scope


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudImage:
    """One image in the cloud. `ref`: an AMI's id, or a link without the host."""

    ref: str
    name: str
    created: float
    tags: Mapping[str, str]  # in the core's words
    ready: bool = True  # it can be booted
    promoted: bool = False
    family: str = ""  # where the cloud has families
    snapshots: tuple[str, ...] = ()

    @property
    def installation(self) -> str:
        return self.tags.get(OWNER, "")

    @property
    def recipe(self) -> str:
        return self.tags.get(RECIPE, "")


class ImageStore(Protocol):
    """A provider's images. All raise `ProviderError`, or `ConfigError` for what the configuration
    does not allow."""

    def bench(self, request: ImageRequest) -> BuilderSpec:
        """Place and way in which its builder runs. Nothing is made."""

    def find(self, ref: str) -> CloudImage | None:
        """Find an image by an artifact's id as Packer tells it, or an image's id, name or link."""

    def find_by_name(self, name: str) -> CloudImage | None:
        """Image with this name, of any owner, with all that it consists of: once the image is
        deleted, its snapshots cannot be found by name again. Raises `Uncertain` while the cloud
        does not tell that yet."""

    def images(self) -> list[CloudImage]:
        """All images that this installation made, where it launches."""

    def in_use(self) -> frozenset[str]:
        """References of the images of all machines that the cloud shows, of any owner."""

    def chosen(self, images: Collection[CloudImage], word: str | None = None) -> frozenset[str]:
        """References of the images that a build which names its image `word` may get; None: it
        names none, and gets what the configuration says. More rather than fewer. A cloud that does
        not answer is an error, and no empty set."""

    def finish(self, made: CloudImage) -> None:
        """Take the mark away: from now on it lasts. One that has none is left as it is."""

    def promote(self, made: CloudImage, now: float) -> None:
        """Give this image to builds that name none, from now on. It is finished by that."""

    def remove(self, made: CloudImage) -> list[str]:
        """Delete it and its snapshots; what could not be, in words. Missing is success. When the
        image itself is still there, it raises."""

    def leftovers(self, images: list[CloudImage], now: float) -> list[str]:
        """Delete snapshots of deleted images that `images` no longer name; return the troubles, as
        texts."""


@runtime_checkable
class KeepsImages(Protocol):
    """A provider whose cloud keeps images of ours."""

    def imaging(self, scope: Scope | None = None) -> ImageStore:
        """Return the image store of the scope where it launches, or of another of its scopes."""


def promoted_at(tags: Mapping[str, str]) -> int:
    """Time when an image was promoted, in epoch seconds; 0: it is not, or the tag is unreadable."""
    text = tags.get(PROMOTED, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else 0


def is_unfinished(tags: Mapping[str, str]) -> bool:
    """True if an image has the mark. A version that knows none may have promoted it."""
    return FINISH_BY in tags and PROMOTED not in tags


def unfinished(ref: Ref, tags: Mapping[str, str], created: float | None, power: Power) -> Resource:
    """Resource of an image with the mark, as a sweep shows it: its builder's, until that time."""
    return Resource(
        ref=ref,
        power=power,
        created_at=created,
        tags={
            f"{TAG}installation": tags.get(OWNER, ""),
            f"{TAG}role": Role.IMAGE.value,
            f"{TAG}instance": tags.get(BUILDER, ""),
            f"{TAG}expires-at": tags[FINISH_BY],
        },
    )
