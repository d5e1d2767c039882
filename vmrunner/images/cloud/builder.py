"""An image in a cloud, made by Packer as a build is made: the row with its deadline first, then the
builder, and the row stays open until that one is gone.

What a crash leaves ends as a build's VM does: the builder carries our tags with role `image` and
its deadline, a timer of its own, and the cloud's where there is one; `cleanup` closes its row.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from vmrunner.errors import ConfigError, ImageError, ProviderError, Throttled, Uncertain
from vmrunner.images import recipe
from vmrunner.images.cloud import cleanup, packer, stage
from vmrunner.images.local.builder import Callback
from vmrunner.images.recipe import Inputs, Recipe
from vmrunner.lib import ids
from vmrunner.lib.cloudinit import user_data as cloudinit
from vmrunner.model import ImageState, MadeImage, Rate, Role
from vmrunner.providers import registry
from vmrunner.providers.hourly_rates import rate_of
from vmrunner.providers.port_images import (
    BuilderSpec,
    CloudImage,
    ImageRequest,
    ImageStore,
    KeepsImages,
)

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider

TTL: Final = 3600.0  # seconds that a builder may live
_LEAST: Final = 300.0
_DISK: Final = 10 * recipe.GIB  # the least that the bases fit on
#: So late after its deadline was fixed Packer may begin, in seconds. It takes longer until the
#: builder is born, and the guest's own timer must not come before the cloud's
#: (`Driver.guest_timer_delay`).
_LATE: Final = 60.0
_LOOKS: Final = 7  # for what Packer says it made
_PAUSE: Final = 10.0  # seconds between them
BASES: Final = ("debian-13", "ubuntu-24.04")


def imaging_of(provider: Provider) -> ImageStore:
    """Return the image store of this provider. Raises ConfigError."""
    if not isinstance(provider, KeepsImages):
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
    draft = _draft(ledger, recipe_, inputs, max_ttl)
    # Twice: what no builder can be made with is said before plugins are fetched.
    bench = imaging.bench(_from_now(draft, provider, ttl))
    with TemporaryDirectory(prefix="vmrunner-image-") as name:
        work = Path(name)
        packer.init(work=work, extra=bench.environment, progress=progress)
        bench.prepare()
        # That took minutes, perhaps; the cloud's own deadline counts from the builder's birth.
        request = _from_now(draft, provider, ttl)
        bench = imaging.bench(request)
        row = _row(request, bench, provider, _rate(ledger, provider, bench, recipe_))
        stage.fill(work / "stage", recipe_, inputs, request.created)
        variables = _variables(work, request, bench, recipe_, base)
        _check_late(request, provider.now())
        ledger.images.add(row)
        try:
            artifact = _packed(ledger, row, bench, variables, provider.now(), progress)
            made = _made(imaging, artifact, request, provider.now, sleep)
            ledger.images.ready(row.id, made.ref, made.snapshots)
        finally:
            cleanup.delete_leftovers(ledger, provider, row, sleep)
    row = ledger.images.find(row.id)
    if row.state is ImageState.FAILED:  # by a sweep that saw it past its deadline
        raise ImageError(f"packer build: {row.name} came too late: {row.message}")
    return row


def _draft(ledger: Ledger, recipe_: Recipe, inputs: Inputs, max_ttl: float) -> ImageRequest:
    """Return the request for an image, without its times."""
    return ImageRequest(
        image=ids.image_id(),
        builder=ids.instance_id(),
        installation=ledger.installation,
        generation=ledger.generation,
        recipe=recipe_.name,
        hash=recipe.image_hash(recipe_, inputs),
        supervisor=recipe.supervisor_hash(inputs),
        created=0.0,
        deadline=0.0,
        max_ttl=max_ttl,
    )


def _from_now(request: ImageRequest, provider: Provider, ttl: float) -> ImageRequest:
    now = float(int(provider.now()))
    return replace(request, created=now, deadline=now + ttl)


def _rate(ledger: Ledger, provider: Provider, bench: BuilderSpec, recipe_: Recipe) -> Rate:
    offer = replace(bench.offer, disk=max(_DISK, recipe_.disk))
    return rate_of(provider, offer, Role.IMAGE, ledger.prices.of(offer.scope), provider.now())


def _row(request: ImageRequest, bench: BuilderSpec, provider: Provider, rate: Rate) -> MadeImage:
    return MadeImage(
        id=request.image,
        provider=provider.name,
        scope=bench.scope,
        name=request.name,
        recipe=request.recipe,
        hash=request.hash,
        builder=request.builder,
        state=ImageState.BUILDING,
        created_at=request.created,
        deadline=request.deadline,
        rate=rate,
    )


def _check_late(request: ImageRequest, now: float) -> None:
    late = now - request.created
    if late > _LATE:
        lifetime = request.deadline - request.created
        raise ImageError(
            f"packer build: {late:.0f} s of the builder's {lifetime:.0f} s were over before it "
            "began; nothing was started",
            hint="try again when this machine is less busy",
        )


def _packed(
    ledger: Ledger,
    row: MadeImage,
    bench: BuilderSpec,
    variables: Path,
    now: float,
    progress: Callback,
) -> str:
    """The artifact that Packer tells. Any other end is a failure of the image."""
    try:
        timeout = max(1.0, row.deadline - now)
        return packer.run(bench, variables=variables, timeout=timeout, progress=progress)
    except BaseException as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        ledger.images.fail(row.id, reason.partition("\n")[0] or type(error).__name__)
        raise


def _made(
    imaging: ImageStore,
    artifact: str,
    request: ImageRequest,
    now: Callable[[], float],
    sleep: Callable[[float], object],
) -> CloudImage:
    """Finish what Packer says is there: a cloud that does not is behind, or does not answer. Raises
    ImageError when it cannot be told in a while, which is no failure: a sweep will tell."""
    why = ""
    for look in range(_LOOKS):
        if look:
            sleep(_PAUSE)
        try:
            found = imaging.find(artifact)
            if now() >= request.finish_by:  # it may be deleted at any moment
                why = "its time is over"
                break
            if found is not None:
                imaging.finish(found)
                return found
            why = "it does not show yet"
        except (Throttled, Uncertain) as error:
            why = str(error)
        except ProviderError as error:
            why = str(error)
            break
    raise ImageError(
        f"packer made {artifact}, which cannot be recorded now: {why}",
        hint="once its builder's deadline is over, `vmrunner reap` or an engine records it",
    )


def _check(ttl: float, max_ttl: float, base: str) -> None:
    if not _LEAST <= ttl <= max_ttl:
        raise ConfigError(
            f"--ttl: {ttl:.0f} s",
            hint=f"from {_LEAST:.0f} s to limits.max_ttl, which is {max_ttl:.0f} s",
        )
    if base not in BASES:
        raise ConfigError(f"--base: {base!r}", hint=f"one of {', '.join(BASES)}")


def _variables(
    work: Path, request: ImageRequest, bench: BuilderSpec, recipe_: Recipe, base: str
) -> Path:
    """The file of all that the templates are told."""
    disk = max(_DISK, recipe_.disk)
    after = registry.drivers()[bench.scope.kind].guest_timer_delay
    user_data = work / "user-data"
    user_data.write_bytes(
        cloudinit.builder_data(
            deadline=request.deadline + after, boot_ttl=request.deadline - request.created + after
        )
    )
    variables: dict[str, Any] = {
        "base": base,
        "disk_gib": math.ceil(disk / recipe.GIB),
        "registry_mirror": recipe_.docker.registry_mirror or "",
        "address_pool": recipe_.docker.address_pool,
        "userns": recipe_.docker.userns,
        **bench.variables,
        "image_name": request.name,
        "recipe_hash": request.hash,
        "created": str(int(request.created)),
        "stage_dir": str(work / "stage"),
        "user_data_file": str(user_data),
        "max_run_seconds": int(request.deadline - request.created),
    }
    path = work / "variables.json"
    path.write_text(json.dumps(variables, indent=1))
    return path
