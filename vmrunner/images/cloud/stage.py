"""The stage that Packer's templates take: a directory with all of a recipe that a builder needs.

supervisor/…      as it lies under /usr/lib/vmrunner in the image
image.json        the image's manifest
packages.txt      Debian packages, one a line
containers.json   container images: pulled, or made from packages
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vmrunner.errors import ConfigError
from vmrunner.images import recipe as recipes
from vmrunner.images.recipe import Container, Inputs, Recipe


def manifest(recipe: Recipe, wanted: str, created: float) -> dict[str, Any]:
    """Manifest of an image, which lies inside and beside it. `wanted`: its hash."""
    return {
        "schema_version": 1,
        "name": recipe.name,
        "hash": wanted,
        "suite": recipe.suite,
        "created": created,
        "containers": [c.name for c in recipe.containers],
        "origins": {c.name: c.origin for c in recipe.containers},
        "docker": recipe.docker.model_dump(),
        "announces": True,  # its console says when sshd listens: packer/scripts/10-system.sh
        "channel": True,  # it takes its identity from a port: packer/scripts/60-resident.sh
    }


def fill(directory: Path, recipe: Recipe, inputs: Inputs, created: float) -> str:
    """Fill it, and make it if it is not there; returns the recipe's hash. Raises ConfigError when
    something is in it already."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        taken = any(directory.iterdir())
    except OSError as error:
        raise ConfigError(f"stage: {directory}: {error}", hint="name another directory") from None
    if taken:
        raise ConfigError(f"stage: {directory} is not empty", hint="name another, or empty it")
    for name, content in inputs.supervisor.items():
        path = directory / "supervisor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(recipes.mode(content))
    wanted = recipes.image_hash(recipe, inputs)
    _write(directory / "image.json", manifest(recipe, wanted, created))
    packages = recipes.vm_packages(recipe, inputs)
    (directory / "packages.txt").write_text("".join(f"{name}\n" for name in packages))
    _write(directory / "containers.json", [_container(c) for c in recipe.containers])
    return wanted


def _container(container: Container) -> dict[str, Any]:
    # A builder in a cloud pulls from no registry without a certificate.
    return container.model_dump(exclude={"insecure"})


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
