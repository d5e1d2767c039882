"""Options that builds and sandboxes have in common."""

from __future__ import annotations

from typing import Annotated

import typer

Words = list[str] | None

Provider = Annotated[
    str | None, typer.Option(metavar="NAME", help="A provider's name, or its kind.")
]
Image = Annotated[str | None, typer.Option(metavar="IMAGE", help="The VM's image.")]
Container = Annotated[str | None, typer.Option(metavar="IMAGE", help="The container's image.")]
Docker = Annotated[bool | None, typer.Option("--docker", help="Give it a Docker of its own.")]
Source = Annotated[str | None, typer.Option(metavar="DIR|GIT", help="DIR or git+URL@REF.")]
Env = Annotated[
    Words, typer.Option("-e", "--env", metavar="NAME=VALUE", help="A variable of the steps.")
]
Secret = Annotated[
    Words,
    typer.Option(metavar="NAME[=@FILE]", help="A secret, from this environment or a file."),
]
Label = Annotated[Words, typer.Option("-l", "--label", metavar="NAME=VALUE", help="A label.")]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="A name, usable instead of the id.")]
Cpus = Annotated[int | None, typer.Option(metavar="N", help="The least number of CPUs.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 4GiB.")]
Disk = Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 20GiB.")]
Runtime = Annotated[str | None, typer.Option(metavar="RUNTIME", help="runc, or runsc: gVisor.")]
RegistrySecret = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The secret that pulls the container's image, and nothing else."
    ),
]
QueueTimeout = Annotated[
    str | None, typer.Option(metavar="DURATION", help="The longest wait for a machine.")
]
KeepLogs = Annotated[
    str | None, typer.Option(metavar="DURATION", help="How long its log and artifacts are kept.")
]
Spot = Annotated[bool | None, typer.Option("--spot", help="Prefer spot machines.")]
Priority = Annotated[int | None, typer.Option(metavar="N", help="Higher starts first; default: 0.")]
Privileged = Annotated[
    bool | None,
    typer.Option("--privileged", help="A privileged container, if limits.privileged allows."),
]
