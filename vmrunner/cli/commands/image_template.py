"""`vmrunner image template`: the frozen VM that local builds start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import CliContext, shell_of
from vmrunner.errors import ConfigError, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.model import BuildSpec

_USUAL: Final = 55.0  # seconds of both, emulated on two quiet cores


def template(
    context: typer.Context,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="A local one; default: as builds.")
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="The VM's image.")] = None,
    container: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="The container's image.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="POLICY", help="open, none, or allow=HOST[:PORT],…")
    ] = None,
    cpus: Annotated[str | None, typer.Option(metavar="N", help="As builds will ask.")] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="As builds will ask: 4GiB.")
    ] = None,
    disk: Annotated[
        str | None, typer.Option(metavar="SIZE", help="As builds will ask: 20GiB.")
    ] = None,
) -> int:
    """Make a template, from which such builds start without a boot. Nothing is done if it
    exists."""
    options = {
        "provider": provider,
        "image": image,
        "container": container,
        "network": network,
        "cpus": int(cpus) if cpus and cpus.isdecimal() else cpus,
        "memory": memory,
        "disk": disk,
    }
    shell = shell_of(context)
    given = {name: value for name, value in options.items() if value is not None}
    key = make(shell, given)
    output.say(f"template {key}: made" if key else _why_none(shell, given))
    return exit_codes.OK


def _why_none(shell: CliContext, options: dict[str, Any]) -> str:
    """The reason why no template is needed. Raises ConfigError where none can be made."""
    from vmrunner import images

    spec = _spec(shell, options)
    provider = shell.app.settings.providers[spec.provider]
    field = f"providers.{spec.provider}.templates"
    if getattr(provider, "templates", None) is False:
        raise ConfigError(f"{field}: it is false", hint="leave it out, or write true")
    wanted = spec.image or getattr(provider, "image", None)
    image = images.resolve(shell.app.paths.cache, wanted, images.current)
    if spec.container not in image.containers:
        raise ConfigError(
            f"container: {spec.container!r} is not in VM image {image.name!r}, and a template "
            "holds no other",
            hint=f"in it: {', '.join(image.containers) or 'none'}; a recipe of yours can have it",
        )
    return "the template for such builds is there already"


def make_defaults(shell: CliContext) -> None:
    """Make the templates of builds and of sandboxes that ask for nothing, where they are local. A
    failure costs time later, and nothing else."""
    from vmrunner.model import Network

    try:
        if _have_defaults(shell):
            make(shell, {}, "template 1 of 2, of builds")
            make(shell, {"network": Network.NONE}, "template 2 of 2, of sandboxes (no network)")
    except (VmrunnerError, OSError) as error:
        output.warn(f"no template was made: {error}")


def to_come(shell: CliContext) -> dict[str, float]:
    """Seconds that `make_defaults` will take after an image that is made anew, as the last time, by
    its name in a plan; empty where it makes none."""
    from vmrunner.cli.last_times import LastTimes

    try:
        if not _have_defaults(shell):
            return {}
    except (VmrunnerError, OSError):
        return {}
    last = LastTimes().sum("template: ")
    return {"templates": _USUAL if last is None else 2 * last}


def _have_defaults(shell: CliContext) -> bool:
    """True if builds that ask for nothing start from templates. Raises VmrunnerError, OSError."""
    from vmrunner.providers.port import StartsFromTemplates

    app = shell.app
    return isinstance(app.providers.get(app.settings.provider(None)), StartsFromTemplates)


def make(shell: CliContext, options: dict[str, Any], title: str = "template") -> str | None:
    """Make the template for a build that says this. Returns its key; None as `templates.make`."""
    from vmrunner.cli.last_times import LastTimes
    from vmrunner.services import templates

    app, spec = shell.app, _spec(shell, options)
    with LastTimes().steps("template: ") as begin:

        def progress(text: str) -> None:
            output.say(f"{title}: {text} …{begin(text)}")

        return templates.make(
            app.providers.get(spec.provider),
            spec,
            app.settings,
            app.ledgers.open(make=True),
            progress=progress,
        )


def _spec(shell: CliContext, options: dict[str, Any]) -> BuildSpec:
    from vmrunner.config.build_request import BuildRequest
    from vmrunner.model import Step
    from vmrunner.services import requests

    return requests.check(
        BuildRequest(steps=(Step(run="true"),), **options), shell.app.settings
    ).spec
