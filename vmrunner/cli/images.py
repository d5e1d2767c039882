"""`vmrunner image build|ls|verify`, and the progress of an image that a first build makes."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from vmrunner.cli import exits, output
from vmrunner.cli.output import Column, Format, View
from vmrunner.cli.shell import shell_of

if TYPE_CHECKING:
    from vmrunner.images import LocalImage, Progress

app = typer.Typer(help="VM images: what builds boot from.", no_args_is_help=True)


class ImageProgress:
    """Shows an image build: bars on a terminal, a line a stage elsewhere. Nothing is shown before
    there is something to tell; then first of all `why` it is made."""

    def __init__(self, why: str = "") -> None:
        self._why = why
        self._live = sys.stderr.isatty() and output.coloured(sys.stderr)
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._told: set[tuple[str, bool]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        if self._why:
            output.say(f"{self._why}: it is made now")
            self._why = ""
        if self._live:
            self._bar(progress)
        else:
            self._line(progress)

    def _line(self, progress: Progress) -> None:
        from vmrunner import units

        over = progress.fraction == 1.0
        if (progress.stage, over) in self._told:
            return
        self._told.add((progress.stage, over))
        took = f" took {units.span(progress.seconds)}" if over else " …"
        output.say(f"image: {progress.stage}{took}")

    def _bar(self, progress: Progress) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        task = self._tasks.get(progress.stage)
        if task is None:
            task = self._bars.add_task(progress.stage, total=None, message="")
            self._tasks[progress.stage] = task
        total = None if progress.fraction is None else 1.0
        self._bars.update(
            task,
            total=total,
            completed=progress.fraction or 0.0,
            message=output.clean(progress.message)[:60],
        )
        if progress.fraction == 1.0:
            self._bars.stop_task(task)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", markup=False),
        console=Console(stderr=True),
    )


@app.command()
def build(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(help="A recipe that ships with vmrunner, or a .toml file.")
    ] = "default",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Every stage again: newer packages.")
    ] = False,
    accel: Annotated[
        str | None, typer.Option(help="auto, kvm or tcg; default: as configured.")
    ] = None,
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> int:
    """Make a local image. What is there already is not made again; a broken-off build goes on."""
    from vmrunner import images

    shell = shell_of(context)
    configured = [p.accel for p in shell.loaded.settings.providers.values() if p.kind == "qemu"]
    with ImageProgress() as progress:
        image = images.build(
            images.find(recipe),
            cache=shell.wiring.paths.cache,
            progress=progress,
            accel=accel or (configured[0] if configured else "auto"),
            fresh=fresh,
        )
    output.show(_view(), [image], form)
    return exits.OK


@app.command()
def ls(
    context: typer.Context,
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> int:
    """The local images, newest first."""
    from vmrunner import images

    output.show(_view(), images.images(shell_of(context).wiring.paths.cache), form)
    return exits.OK


@app.command()
def verify(
    context: typer.Context,
    image: Annotated[
        str | None, typer.Argument(help="A name or the beginning of a hash; default: the newest.")
    ] = None,
    form: Annotated[Format, typer.Option("-o", "--output")] = Format.TABLE,
) -> int:
    """Read every byte of an image and boot it; check what must be in it."""
    from vmrunner import images
    from vmrunner.cli.findings import show_findings

    cache = shell_of(context).wiring.paths.cache
    return show_findings(images.verify(images.resolve(cache, image)), form)


def _view() -> View[LocalImage]:
    from vmrunner import units
    from vmrunner.cli.views import iso

    now = time.time()
    return View(
        kind="image",
        columns=(
            Column("hash", lambda i: i.hash[:12]),
            Column("name", lambda i: i.name),
            Column("age", lambda i: units.span(now - i.created)),
            Column("size", lambda i: units.amount(i.size)),
            Column("containers", lambda i: ", ".join(i.containers)),
            Column("directory", lambda i: str(i.directory), wide=True),
        ),
        document=lambda i: {
            "hash": i.hash,
            "name": i.name,
            "created_at": iso(i.created),
            "size": i.size,
            "containers": list(i.containers),
            "directory": str(i.directory),
        },
        empty="no image yet: vmrunner image build makes one",
    )
