"""Options that builds and sandboxes have in common."""

from __future__ import annotations

from typing import Annotated

import typer

Words = list[str] | None

Provider = Annotated[
    str | None, typer.Option(metavar="NAME", help="A provider's name, or its kind.")
]
Image = Annotated[str | None, typer.Option(metavar="IMAGE", help="VM image.")]
Container = Annotated[str | None, typer.Option(metavar="IMAGE", help="Container image.")]
Docker = Annotated[bool | None, typer.Option("--docker", help="Give the build its own Docker.")]
Source = Annotated[
    str | None,
    typer.Option(metavar="DIR|GIT", help="Files for /work: a directory, or git+URL@REF."),
]
Env = Annotated[
    Words,
    typer.Option("-e", "--env", metavar="NAME=VALUE", help="Variable of the steps."),
]
Secret = Annotated[
    Words,
    typer.Option(metavar="NAME[=@FILE]", help="Secret from this environment, or from a file."),
]
Label = Annotated[
    Words,
    typer.Option(
        "-l", "--label", metavar="NAME=VALUE", help="Label of the build; repeat for more."
    ),
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of the build, usable in place of its id.")
]
Cpus = Annotated[int | None, typer.Option(metavar="N", help="Minimum number of CPUs.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Minimum memory, such as 4GiB.")]
Disk = Annotated[str | None, typer.Option(metavar="SIZE", help="Disk of the VM, such as 20GiB.")]
Runtime = Annotated[str | None, typer.Option(metavar="RUNTIME", help="runc, or runsc for gVisor.")]
RegistrySecret = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Secret that is used to pull the container image only."),
]
QueueTimeout = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Longest wait for a VM.")
]
KeepLogs = Annotated[
    str | None, typer.Option(metavar="DURATION", help="How long log and artifacts are kept.")
]
Spot = Annotated[bool | None, typer.Option("--spot", help="Prefer spot VMs.")]
Priority = Annotated[int | None, typer.Option(metavar="N", help="Higher starts first; default: 0.")]
Privileged = Annotated[
    bool | None,
    typer.Option("--privileged", help="Privileged container, if limits.privileged allows it."),
]
