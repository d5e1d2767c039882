"""`vmrunner image build|stage|ls|verify`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exit_codes, output, signals
from vmrunner.cli.commands import image_gc, image_template
from vmrunner.cli.context import CliContext, shell_of
from vmrunner.cli.image_progress import ImageProgress
from vmrunner.cli.output import Format
from vmrunner.cli.views import images as imageviews
from vmrunner.errors import BadOrder, ConfigError, LedgerError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmrunner.model import MadeImage

app = typer.Typer(help="Make and manage the VM images of builds.", no_args_is_help=True)

Recipe = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A recipe that ships with vmrunner, or a .toml file."),
]


@app.command()
def build(
    context: typer.Context,
    recipe: Recipe = "default",
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Make it in this provider's cloud, by Packer; default: here."
        ),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="With --provider: longest life of its builder: 1h."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="BASE", help="With --provider: debian-13 or ubuntu-24.04.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make every stage again, with newer packages.")
    ] = False,
    accel: Annotated[
        str | None,
        typer.Option(metavar="ACCEL", help="Has no effect: making a local image boots nothing."),
    ] = None,
    unit: Annotated[
        bool,
        typer.Option("--unit", help="Make the image that runs beside a build in a pod."),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="REGISTRY/NAME", help="With --unit: push it; prints its digest."),
    ] = None,
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> int:
    """Make an image. A local one that exists is not made again, and an interrupted build of one
    goes on. In a cloud the image is a candidate: `promote` gives it to builds."""
    if unit or push is not None:
        alien = {"RECIPE": None if recipe == "default" else recipe, "--provider": provider}
        return _build_unit(
            shell_of(context), alien | {"--accel": accel}, unit=unit, push=push, fresh=fresh
        )
    from vmrunner import images

    shell = shell_of(context)
    _check_options({"--ttl": ttl, "--base": base}, provider)
    if provider is not None:
        if fresh or accel is not None:
            option = "--fresh" if fresh else "--accel"
            raise ConfigError(f"{option}: only for local images", hint="leave it out")
        made = _cloud(shell, recipe, provider, ttl, base)
        output.show(imageviews.view(), [imageviews.of_cloud(made)], form)
        if form in (Format.TABLE, Format.WIDE):
            output.say(f"a candidate: vmrunner image promote {made.id} lets builds have it")
        return exit_codes.OK
    finished = "the stages that are finished are kept, and the next build goes on from there"
    found = images.find(recipe)
    later = image_template.to_come(shell) if found.name == images.DEFAULT else {}
    with signals.tidied_up(finished), ImageProgress(later=later) as progress:
        image = images.build(
            found,
            cache=shell.app.paths.cache,
            progress=progress,
            fresh=fresh,
        )
    output.show(imageviews.view(), [imageviews.of_local(image)], form)
    if image.name == images.DEFAULT:
        image_template.make_defaults(shell)
    return exit_codes.OK


def _check_options(options: dict[str, str | None], provider: str | None) -> None:
    for option, value in options.items():
        if value is not None and provider is None:
            raise ConfigError(f"{option}: only for images in a cloud", hint="name a --provider")


def _cloud(
    shell: CliContext,
    recipe: str,
    provider: str,
    ttl: str | None,
    base: str | None,
) -> MadeImage:
    from vmrunner import images
    from vmrunner.images.cloud import builder
    from vmrunner.lib import units

    app = shell.app
    ledger = app.ledgers.open(make=True)
    name = app.settings.provider(provider)
    with ImageProgress() as progress:
        return builder.build(
            images.find(recipe),
            provider=app.providers.get(name),
            ledger=ledger,
            max_ttl=app.settings.limits.max_ttl,
            ttl=builder.TTL if ttl is None else units.duration(ttl, "--ttl"),
            base=base or builder.BASES[0],
            progress=progress,
        )


@app.command()
def stage(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The directory to fill: a new one, or empty.")
    ],
    recipe: Recipe = "default",
) -> int:
    """Fill a directory to run Packer by hand. Packer's templates take it as `stage_dir`."""
    from vmrunner import images
    from vmrunner.images import recipe as recipes
    from vmrunner.images.cloud import stage as staging

    wanted = staging.fill(directory, images.find(recipe), recipes.Inputs.read(), time.time())
    output.print_out(wanted)
    return exit_codes.OK


@app.command()
def ls(
    context: typer.Context,
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> int:
    """List images, newest first. Local ones, and those that this ledger made in clouds."""
    from vmrunner import images

    shell = shell_of(context)
    found = [imageviews.of_local(image) for image in images.images(shell.app.paths.cache)]
    try:
        found += [imageviews.of_cloud(image) for image in shell.ledger.images.list()]
    except LedgerError as error:  # what is in the cache needs none
        output.warn(str(error))
    output.show(imageviews.view(), sorted(found, key=lambda i: i.created, reverse=True), form)
    return exit_codes.OK


@app.command()
def verify(
    context: typer.Context,
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGE", help="A name or the beginning of a hash; default: the newest."
        ),
    ] = None,
    unit: Annotated[
        bool, typer.Option("--unit", help="The unit image of this version: read it and start it.")
    ] = False,
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> int:
    """Check a local image: read all of it and boot it."""
    if unit:
        return _verify_unit(shell_of(context), image, form)
    from vmrunner import images
    from vmrunner.cli.views.findings import show_findings

    cache = shell_of(context).app.paths.cache
    try:
        found = images.resolve(cache, image)
    except BadOrder as error:
        raise NotFound(str(error.args[0]), hint=error.hint) from None
    return show_findings(images.verify(found), form)


def _build_unit(
    shell: CliContext,
    others: Mapping[str, str | None],
    *,
    unit: bool,
    push: str | None,
    fresh: bool,
) -> int:
    """Make it, and push it. `others`: options that mean nothing here, with what was given."""
    from vmrunner.images import unit_image

    if not unit:
        raise ConfigError(f"--push {push}: only for unit images", hint="add --unit")
    for option, value in others.items():
        if value is not None:
            raise ConfigError(f"{option}: {value}: not for unit images", hint="leave it out")
    image = unit_image.build(cache=shell.app.paths.cache, fresh=fresh, report=output.say)
    output.say(f"unit image {image.hash}: {image.digest} in {image.directory}")
    if push is not None:
        output.say(f"pushing to {push}")
        print(unit_image.push(image, push))  # noqa: T201
    return exit_codes.OK


def _verify_unit(shell: CliContext, image: str | None, form: Format) -> int:
    """Read it and start it, making it first where it is not there."""
    from vmrunner.cli.views.findings import show_findings
    from vmrunner.images import unit_image
    from vmrunner.images.verification import unit_trial

    if image is not None:
        raise ConfigError(f"IMAGE: {image}: --unit verifies this version's", hint="leave it out")
    found = unit_image.build(cache=shell.app.paths.cache, report=output.say)
    return show_findings(unit_trial.verify(found), form)


app.command()(image_gc.promote)
app.command()(image_gc.gc)
app.command()(image_template.template)
