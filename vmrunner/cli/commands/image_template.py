"""`vmrunner image template`: the frozen VM that local builds start from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import CliContext, shell_of
from vmrunner.errors import VmrunnerError


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
    """Make the template for builds that ask for this, unless it is there. They start from it
    instead of booting."""
    said = {
        "provider": provider,
        "image": image,
        "container": container,
        "network": network,
        "cpus": int(cpus) if cpus and cpus.isdecimal() else cpus,
        "memory": memory,
        "disk": disk,
    }
    shell = shell_of(context)
    key = make(shell, {name: value for name, value in said.items() if value is not None})
    output.say(f"template {key}: made" if key else "it is there already, or none would fit")
    return exit_codes.OK


def make_defaults(shell: CliContext) -> None:
    """Make the templates of builds and of sandboxes that ask for nothing, where they are local. A
    failure costs time later, and nothing else."""
    from vmrunner.model import Network
    from vmrunner.providers.port import StartsFromTemplates

    app = shell.app
    try:
        if isinstance(app.providers.get(app.settings.provider(None)), StartsFromTemplates):
            make(shell, {})
            make(shell, {"network": Network.NONE})
    except (VmrunnerError, OSError) as error:
        output.warn(f"no template was made: {error}")


def make(shell: CliContext, said: dict[str, Any]) -> str | None:
    """Make the template for a build that says this. Returns its key; None as `templates.make`."""
    from vmrunner.config.build_request import BuildRequest
    from vmrunner.model import Step
    from vmrunner.services import requests, templates

    app = shell.app
    spec = requests.check(BuildRequest(steps=(Step(run="true"),), **said), app.settings).spec
    return templates.make(
        app.providers.get(spec.provider),
        spec,
        app.settings,
        app.ledgers.open(make=True),
        progress=lambda text: output.say(f"template: {text} …"),
    )
