"""An image in a cloud, made by Packer as a build is made: the row with its deadline first, then the
builder, and the row stays open until that one is gone.

What a crash leaves ends as a build's VM does: the builder carries our tags with role `image` and
its deadline, a timer of its own, and the cloud's where there is one; `settling` closes its row.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from vmrunner import cloudinit, ids
from vmrunner.errors import ConfigError, ImageError
from vmrunner.images import packer, recipe, settling, stage
from vmrunner.images.build import Callback
from vmrunner.images.recipe import Inputs, Recipe
from vmrunner.model import ImageState, MadeImage
from vmrunner.orders import TIMER_AFTER
from vmrunner.providers.imaging import Bench, Imaging, Keeps, Made, Wish

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider

TTL: Final = 3600.0  # seconds that a builder may live
_LEAST: Final = 300.0
_DISK: Final = 10 * recipe.GIB  # the least that the bases fit on
BASES: Final = ("debian-13", "ubuntu-24.04")


def imaging_of(provider: Provider) -> Imaging:
    """What can be done about the images of this provider's. Raises ConfigError."""
    if not isinstance(provider, Keeps):
        raise ConfigError(
            f"provider: {provider.name} keeps no images in a cloud",
            hint="leave --provider out: local images are made here",
        )
    return provider.imaging()


def build(
    recipe_: Recipe,
    *,
    provider: Provider,
    ledger: Ledger,
    max_ttl: float,
    ttl: float = TTL,
    base: str = BASES[0],
    progress: Callback = lambda _: None,
    sleep: Callable[[float], object] = time.sleep,
) -> MadeImage:
    """Make a candidate, on a builder that lives at most `ttl` seconds. Raises ConfigError for what
    the user can mend, before anything is started; ImageError with Packer's last words."""
    imaging = imaging_of(provider)
    packer.require()
    _check(ttl, max_ttl, base)
    inputs = Inputs.read()
    _ = provider.scopes  # the first answer tells the cloud's time
    now = float(int(provider.now()))
    wish = Wish(
        image=ids.image_id(),
        builder=ids.instance_id(),
        installation=ledger.installation,
        generation=ledger.generation,
        recipe=recipe_.name,
        hash=recipe.image_hash(recipe_, inputs),
        supervisor=recipe.supervisor_hash(inputs),
        created=now,
        deadline=now + ttl,
    )
    bench = imaging.bench(wish)
    row = MadeImage(
        id=wish.image,
        provider=provider.name,
        scope=bench.scope,
        name=wish.name,
        recipe=wish.recipe,
        hash=wish.hash,
        builder=wish.builder,
        state=ImageState.BUILDING,
        created_at=now,
        deadline=wish.deadline,
    )
    with TemporaryDirectory(prefix="vmrunner-image-") as name:
        work = Path(name)
        stage.fill(work / "stage", recipe_, inputs, now)
        disk = max(_DISK, recipe_.disk)
        said = {
            "base": base,
            "disk_gib": math.ceil(disk / recipe.GIB),
            "registry_mirror": recipe_.docker.registry_mirror or "",
            "address_pool": recipe_.docker.address_pool,
            "userns": recipe_.docker.userns,
        }
        variables = _variables(work, wish, bench, said)
        packer.init(work=work, extra=bench.environment, progress=progress)
        ledger.images.add(row)
        try:
            artifact = packer.run(
                source=bench.source,
                variables=variables,
                work=work,
                extra=bench.environment,
                timeout=max(1.0, wish.deadline - provider.now()),
                progress=progress,
            )
            made = _made(imaging, artifact)
            ledger.images.ready(row.id, made.ref, made.snapshots)
        except BaseException as error:
            words = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            ledger.images.fail(row.id, words.partition("\n")[0] or type(error).__name__)
            raise
        finally:
            settling.bury(ledger, provider, row, sleep)
    return ledger.images.find(row.id)


def _made(imaging: Imaging, artifact: str) -> Made:
    found = imaging.find(artifact)
    if found is None:
        raise ImageError(f"packer build: it told of {artifact}, which is not there")
    return found


def _check(ttl: float, max_ttl: float, base: str) -> None:
    if not _LEAST <= ttl <= max_ttl:
        raise ConfigError(
            f"--ttl: {ttl:.0f} s",
            hint=f"from {_LEAST:.0f} s to limits.max_ttl, which is {max_ttl:.0f} s",
        )
    if base not in BASES:
        raise ConfigError(f"--base: {base!r}", hint=f"one of {', '.join(BASES)}")


def _variables(work: Path, wish: Wish, bench: Bench, said: dict[str, Any]) -> Path:
    """The file of all that the templates are told."""
    after = TIMER_AFTER.get(bench.scope.kind, 0.0)
    user_data = work / "user-data"
    user_data.write_bytes(
        cloudinit.builder_data(
            deadline=wish.deadline + after, boot_ttl=wish.deadline - wish.created + after
        )
    )
    variables: dict[str, Any] = {
        **said,
        **bench.variables,
        "image_name": wish.name,
        "recipe_hash": wish.hash,
        "created": str(int(wish.created)),
        "stage_dir": str(work / "stage"),
        "user_data_file": str(user_data),
        "max_run_seconds": int(wish.deadline - wish.created),
    }
    path = work / "variables.json"
    path.write_text(json.dumps(variables, indent=1))
    return path
