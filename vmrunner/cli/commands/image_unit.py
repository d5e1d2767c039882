"""`vmrunner image build|verify --unit`: the image that runs beside a build's own container."""

from __future__ import annotations

from collections.abc import Mapping

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import CliContext
from vmrunner.cli.output import Format
from vmrunner.errors import ConfigError


def build(
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


def verify(shell: CliContext, image: str | None, form: Format) -> int:
    """Read it and start it, making it first where it is not there."""
    from vmrunner.cli.views.findings import show_findings
    from vmrunner.images import unit_image
    from vmrunner.images.verification import unit_trial

    if image is not None:
        raise ConfigError(f"IMAGE: {image}: --unit verifies this version's", hint="leave it out")
    found = unit_image.build(cache=shell.app.paths.cache, report=output.say)
    return show_findings(unit_trial.verify(found), form)
