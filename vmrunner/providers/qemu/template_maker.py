"""The making of a template: a VM that boots, settles and is frozen; then a clone that proves it.

Both are instances like any other: a directory, a keeper, a deadline. Neither has a network of its
own or ever serves a build. Nothing is a template before its clone has answered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vmrunner.errors import BadOrder, ProviderError
from vmrunner.lib import units
from vmrunner.model import Kind, Order, Ref
from vmrunner.providers.qemu import templates
from vmrunner.providers.qemu.provider import QemuProvider, translating
from vmrunner.providers.qemu.templates import Template

_HALF_MADE: Final = 3600.0  # seconds after which what a maker left is rubbish
_PAUSE: Final = 0.2  # seconds between looks


class QemuTemplateMaker:
    """A maker of templates in the cache of one provider."""

    def __init__(self, provider: QemuProvider) -> None:
        self._provider = provider
        self._cache = provider.options.cache_dir

    def missing(self, order: Order) -> str | None:
        wanted = self._provider.plan(order).template_key()
        if not self._provider.options.templates or wanted is None:
            return None
        found = templates.find(self._cache, wanted, self._provider.verified)
        return wanted if found is None else None

    @contextlib.contextmanager
    def begin(self, key: str) -> Iterator[Template]:
        """Yield a place for a template under a temporary name; what is not published goes. One
        maker per key: raises ProviderError where another is at it."""
        made = templates.begin(self._cache)
        try:
            with _lock(made.parent / f"{key}{templates.LOCK}"):
                templates.forget_wanted(self._cache, key)  # one try for a miss
                yield Template(made)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def boot(self, order: Order, template: Template) -> Ref:
        return self._create(order, save=template.directory)

    def clone(self, order: Order, template: Template) -> Ref:
        """Start a VM from a template that has no name yet."""
        return self._create(order, template=template)

    def _create(self, order: Order, **of: Any) -> Ref:
        with translating():
            vm = dataclasses.replace(self._provider.plan(order), sealed=True, **of)
            placed = self._provider.place(vm)
        if isinstance(placed, str):
            raise BadOrder(f"template: {placed}")
        self._provider.start(placed)
        return Ref(self._provider.scope, Kind.INSTANCE, order.instance)

    def publish(self, template: Template, key: str, order: Order) -> Template:
        """Give it its name, and make room for it. `order`: as builds that it is for send. Raises
        ProviderError where it has no room."""
        if template.size > (most := self._provider.options.templates_max_bytes):
            size, most_said = units.amount(template.size), units.amount(most)
            raise ProviderError(f"template: it takes {size}, templates_max_bytes is {most_said}")
        vm = self._provider.plan(order)
        named = templates.publish(
            *(template.directory, key, order, self._provider.verified),
            of={"image": vm.image.name, "accel": vm.accel},
        )
        self.trim()
        return named

    def trim(self) -> list[Template]:
        """Remove what has no room, and what makers left. Returns the templates that went."""
        most = self._provider.options.templates_max_bytes
        return templates.trim(self._cache, most, now=time.time(), half_made=_HALF_MADE)

    def await_frozen(self, order: Order) -> None:
        state = self._provider.state
        instance_dir, held = state.instance_dir(order.instance), True
        while (tombstone := state.tombstone(order.instance)) is None:
            if not held:
                raise ProviderError("template: its VM's keeper was killed")
            held = (
                instance_dir is not None and instance_dir.held
            )  # a keeper leaves a tombstone before it goes
            if time.time() >= order.deadline + _PAUSE:
                raise ProviderError("template: its VM did not end")
            time.sleep(_PAUSE)
        if tombstone.get("cause") != "saved":
            console = str(tombstone.get("console", "")).splitlines()[-5:]
            raise ProviderError("\n".join([f"template: {tombstone.get('detail')}", *console]))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a key for one maker."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProviderError("template: another process makes it") from None
        os.utime(file.fileno())  # `trim` removes old ones
        yield
