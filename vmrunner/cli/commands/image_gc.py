"""`vmrunner image promote|gc`: which image builds get, and which go."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import CliContext, shell_of
from vmrunner.cli.output import Column, Format, ListView
from vmrunner.errors import ConfigError, NotFound, ProviderError, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.images.retention import ImageGcResult, ImageOutcome
    from vmrunner.providers import Provider
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.services.document_types import ImageVerdictDocument


def promote(
    context: typer.Context,
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="Its id, or the cloud's: ami-…, a name, a link.")
    ],
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The image's provider; default: as the ledger knows it."),
    ] = None,
) -> int:
    """Give this image to builds that name none. To roll back, promote an older one."""
    from vmrunner.images import retention

    shell = shell_of(context)
    settings = shell.app.settings
    reference, name = image, None if provider is None else settings.provider(provider)
    try:
        row = shell.ledger.images.find(image)
    except NotFound as error:
        if name is None:
            hint = "vmrunner image ls lists them; --provider asks its cloud"
            raise NotFound(f"image {image!r} is not in this ledger", hint=hint) from error
    else:
        if row.ref is None:
            raise ConfigError(f"image {row.id}: {row.state.value}", hint="build another")
        reference, name = row.ref, name or row.provider
    made, warning = retention.promote(shell.ledger, shell.app.providers.get(name), reference)
    if warning:
        output.warn(warning)
    output.say(f"builds of {name} that name no image get {made.ref} ({made.name})")
    return exit_codes.OK


def gc(
    context: typer.Context,
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="In this one's cloud; default: the local images."),
    ] = None,
    keep: Annotated[int, typer.Option(min=0, metavar="N", help="How many of each name stay.")] = 3,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would do; do nothing.")
    ] = False,
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> int:
    """Delete old images of this installation. Their snapshots go too. Never one that is promoted,
    in use, or among the newest of its name."""
    shell = shell_of(context)
    cleared = (
        _local(shell, keep, dry_run) if provider is None else _cloud(shell, provider, keep, dry_run)
    )
    output.show(_view(), cleared.images, form)
    for text in cleared.troubles:
        output.warn(text)
    failed = cleared.troubles or any(done.trouble for done in cleared.images)
    return exit_codes.PARTLY if failed else exit_codes.OK


def _cloud(shell: CliContext, provider: str, keep: int, dry_run: bool) -> ImageGcResult:
    from vmrunner.images import retention

    app = shell.app
    name = app.settings.provider(provider)
    kind = app.settings.providers[name].kind
    driver = app.providers.get(name)
    peers = [
        _opened(app.providers, peer)
        for peer, section in app.settings.providers.items()
        if section.kind == kind
    ]
    return retention.clear(shell.ledger, driver, peers=peers, keep=keep, dry_run=dry_run)


def _opened(providers: ProviderSet, name: str) -> Provider:
    """One that may need an image. Raises ProviderError when that cannot be told."""
    try:
        return providers.get(name)
    except VmrunnerError as error:
        raise ProviderError(
            f"{error}; what providers.{name} gives to builds is not known: no image is deleted"
        ) from error


def _local(shell: CliContext, keep: int, dry_run: bool) -> ImageGcResult:
    """Delete old local images. What a build of this ledger names is in use. What a VM was made of
    within the longest life of any may be, whatever ledger knows that VM: the cache is the
    user's."""
    from vmrunner import images
    from vmrunner.images import retention
    from vmrunner.lib import local_images
    from vmrunner.providers.settings import LocalSettings
    from vmrunner.services import templates

    app = shell.app
    found = images.images(app.paths.cache)
    chosen = {images.current()}
    local = {
        n: section
        for n, section in app.settings.providers.items()
        if isinstance(section, LocalSettings)
    }
    drivers = [_opened(app.providers, name) for name in local]
    for name, section in local.items():
        if section.image is not None:
            hashes = retention.matching(found, section.image)
            if not hashes:
                output.warn(f"providers.{name}.image: there is no local image {section.image!r}")
            chosen |= hashes
    now, life = time.time(), app.settings.limits.max_ttl
    used = {image.hash for image in found if now - local_images.last_used(image) < life}
    used.update(*(retention.matching(found, word) for word in retention.wanted(shell.ledger)))
    cleared = retention.clear_local(found, chosen=chosen, used=used, keep=keep, dry_run=dry_run)
    if not dry_run:
        templates.trim(drivers)
    return cleared


def _view() -> ListView[ImageOutcome]:
    from vmrunner.lib import units

    now = time.time()
    return ListView(
        kind="image_verdict",
        columns=(
            Column("verdict", _verdict, colour=lambda d: "red" if d.verdict.goes else ""),
            Column("why", lambda d: d.verdict.why.value),
            Column("name", lambda d: d.verdict.image.name),
            Column("age", lambda d: units.span(max(0.0, now - d.verdict.image.created))),
            Column("ref", lambda d: d.verdict.image.ref),
            Column("title", lambda d: d.title, wide=True),
            Column("outcome", _outcome),
        ),
        document=_document,
        empty="no image of ours is there",
    )


def _document(done: ImageOutcome) -> ImageVerdictDocument:
    from vmrunner.services.documents import iso

    image = done.verdict.image
    return {
        "verdict": _verdict(done),
        "why": done.verdict.why,
        "name": image.name,
        "created_at": iso(image.created),
        "ref": image.ref,
        "title": done.title,
        "removed": done.removed,
        "trouble": done.trouble or None,
    }


def _verdict(done: ImageOutcome) -> str:
    return "retire" if done.verdict.goes else "keep"


def _outcome(done: ImageOutcome) -> str:
    if done.trouble:
        return done.trouble
    return "removed" if done.removed else "nothing done" if done.verdict.goes else ""
