"""The port, for VMs on this host. What it knows is on the disk and in /proc: any process with the
same state directory sees and ends the same VMs."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from vmrunner.errors import BadOrder, ConfigError, NoCapacity, Uncertain
from vmrunner.lib import local_images, units
from vmrunner.lib.local_images import LocalImage
from vmrunner.model import (
    Fate,
    Finding,
    HostUsage,
    Key,
    Kind,
    Network,
    Offer,
    Order,
    Outcome,
    Page,
    Ref,
    Scope,
    Seen,
    Shape,
    Spec,
)
from vmrunner.providers.common.console import CONSOLE_BYTES
from vmrunner.providers.port import TemplateMaker
from vmrunner.providers.qemu import (
    accel,
    dns,
    doctor,
    image_integrity,
    keeper_process,
    launch_plan,
    network,
    state_dir,
    sweep,
    templates,
    usage,
)
from vmrunner.providers.qemu.command_line import MiB
from vmrunner.providers.qemu.dns import Resolver
from vmrunner.providers.qemu.launch_plan import VmPlan
from vmrunner.providers.qemu.options import QemuOptions

_log = logging.getLogger(__name__)
_HALF_MADE: Final = 600.0  # seconds after which a directory under a temporary name is rubbish
_REMEMBER: Final = 3600.0  # seconds a tombstone outlives its VM and its deadline


class QemuProvider:
    """VMs on this host, one directory each under `options.state_dir`."""

    creates = 8
    holds_allow_lists = True
    holds_no_network = True

    def __init__(self, options: QemuOptions) -> None:
        if not state_dir.is_word(options.installation):
            raise ConfigError(
                f"installation: {options.installation!r}",
                hint="letters, digits and -, as in a UUID",
            )
        self.options = options
        dns.check(options.dns)
        self.state = state_dir.StateDir(options.state_dir.expanduser().resolve())
        try:
            self.state.prepare()
        except OSError as error:
            raise ConfigError(f"the data directory cannot be used: {error}") from error
        self.scope = sweep.scope(self.state)
        self._mark = sweep.mark(self.state)
        self._warned = False

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def scopes(self) -> frozenset[Scope]:
        return frozenset((self.scope,))

    def now(self) -> float:
        return time.time()

    # --- what can be had ---

    def offers(self, spec: Spec) -> Sequence[Offer]:
        image = self._image(spec.image)
        cpus, memory, disk = self.check_size(spec, least=image.virtual_size, image=image.name)
        return (
            Offer(
                scope=self.scope,
                machine_type=f"{cpus}x{memory // MiB}MiB",
                place=socket.gethostname(),
                cpus=cpus,
                memory=memory,
                disk=disk,
                image=image.hash,
            ),
        )

    def check_size(self, spec: Spec, *, least: int = 0, image: str = "") -> tuple[int, int, int]:
        options = self.options
        if spec.spot:
            raise BadOrder("spot: this host has no spot market", hint="leave --spot out")
        cpus, memory = spec.cpus or options.cpus, spec.memory or options.memory
        limit = max(8, os.cpu_count() or 1)
        if not 1 <= cpus <= limit:
            raise BadOrder(f"cpus = {cpus}: this host gives 1 to {limit} to a VM")
        if memory < 256 * MiB:
            raise BadOrder(f"memory = {memory // MiB} MiB: a VM needs at least 256 MiB")
        if memory > (total := doctor.memory("MemTotal")):
            raise BadOrder(f"memory = {memory // MiB} MiB: this host has {total // MiB} MiB")
        disk = spec.disk or max(options.disk, least)
        if disk < least:
            raise BadOrder(f"disk = {disk // MiB} MiB: image {image} needs {least // MiB} MiB")
        return cpus, memory, disk

    def check_room(self, disk: int) -> None:
        room, most = doctor.room(self.state), launch_plan.growth(disk)
        if most > room:
            raise BadOrder(
                f"disk: {units.amount(disk)} may take {units.amount(most)}, and "
                f"{self.state.path} has room for {units.amount(room)}",
                hint="a smaller one, or free some space",
            )

    @property
    def resolver(self) -> Resolver:
        """Return the resolver that builds ask for names."""
        return dns.choose(self.options.dns, network.host_prefixes())

    @property
    def verified(self) -> Path:
        """Return the file that notes which images were found as they were made."""
        cache = self.options.cache_dir
        return (cache if os.access(cache, os.W_OK) else self.state.path) / image_integrity.NOTES

    def _image(self, wanted: str | None) -> LocalImage:
        options = self.options
        return local_images.resolve(options.cache_dir, wanted or options.image, options.current)

    # --- birth ---

    def create(self, order: Order) -> Ref:
        """Returns when the keeper holds the VM; it boots meanwhile."""
        self._check(order)
        ref = Ref(self.scope, Kind.INSTANCE, order.instance)
        placed = self._existing(order)
        if placed is None:
            with translating():
                placed = self.place(self._templated(self.plan(order)))
        if isinstance(placed, state_dir.InstanceDir):
            self.start(placed)
        return ref

    def start(self, instance_dir: state_dir.InstanceDir) -> None:
        """Start a VM that was placed, unless it was started already."""
        keeper_process.start(instance_dir, f"{self._mark}{instance_dir.path.name}")

    def _check(self, order: Order) -> None:
        if order.offer.scope != self.scope:
            raise BadOrder(f"the offer is of {order.offer.scope}, this is {self.scope}")
        if not state_dir.is_word(order.instance) or not state_dir.is_word(order.installation):
            raise BadOrder(f"{order.instance!r} of {order.installation!r} cannot name a directory")
        if order.deadline <= time.time():
            raise BadOrder("its deadline has passed")

    def _existing(self, order: Order) -> state_dir.InstanceDir | str | None:
        """The order's directory, or how its VM ended. None: this is the first time."""
        tombstone = self.state.tombstone(order.instance)
        instance_dir = self.state.instance_dir(order.instance)
        recorded = (
            tombstone
            if tombstone is not None
            else instance_dir.read(state_dir.PLAN)
            if instance_dir
            else None
        )
        if recorded is None:
            return instance_dir
        if recorded.get("order") not in (None, launch_plan.digest(order)):
            raise BadOrder(f"{order.instance} exists, made by another order")
        return instance_dir if tombstone is None else str(tombstone.get("detail"))

    def place(self, vm: VmPlan) -> state_dir.InstanceDir | str:
        """Make a VM's directory: whole, or not at all, and only once. Returns how it ended, if it
        did. Raises OSError where nothing was created."""
        order = vm.order
        name = state_dir.DirName(order.installation, order.instance, int(order.deadline))
        instance_dir = state_dir.InstanceDir(self.state.instances / str(name))
        new = self.state.instances / f"{state_dir.NEW}{order.instance}.{os.urandom(4).hex()}"
        new.mkdir(mode=0o700)
        try:
            launch_plan.furnish(new, vm)
            with self.state.locked():
                placed = self._existing(order)
                if placed is not None:
                    return placed
                self._room(order)
                made = launch_plan.make(
                    vm,
                    directory=instance_dir.path,
                    resolver=self.resolver.address,
                    hide=launch_plan.hidden(self.state.path.parent, self.options.cache_dir),
                    mark=f"{self._mark}{name}",
                    now=time.time(),
                )
                state_dir.write_json(new / state_dir.PLAN, made)
                new.rename(instance_dir.path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return instance_dir

    def plan(self, order: Order) -> VmPlan:
        """Plan of the order's VM, without a template."""
        programs = launch_plan.HostPrograms.find(internet=order.network is not Network.NONE)
        image = self._image(order.offer.image or None)
        image_integrity.check(image, self.verified)
        local_images.used(image)
        chosen = accel.choose(
            self.options.accel,
            qemu=programs.qemu,
            kernel=image.kernel,
            cache_dir=self.options.cache_dir,
        )
        if chosen.warning and not self._warned:
            self._warned = True
            _log.warning("%s: %s", self.name, chosen.warning)
        return VmPlan(order=order, image=image, programs=programs, accel=chosen.name)

    def _templated(self, vm: VmPlan) -> VmPlan:
        """The same, from its template where there is one; else that is noted as wanted."""
        order, wanted = vm.template_order(), vm.template_key()
        if order is None or wanted is None or not self.options.templates:
            return vm
        template = templates.find(self.options.cache_dir, wanted, self.verified)
        if template is None:
            self._note_wanted(vm, order, wanted)
            return vm
        template.use()
        return dataclasses.replace(vm, template=template)

    def _note_wanted(self, vm: VmPlan, order: Order, wanted: str) -> None:
        """Note a template that was not found; the first time say why one that is there is none."""
        cache, of = self.options.cache_dir, {"image": vm.image.name, "accel": vm.accel}
        if templates.note_wanted(cache, wanted, order) and (
            former := templates.former(cache, order, of)
        ):
            _log.warning(
                "%s: template %s does not fit: its image, QEMU or processor is another than this "
                "host has now, so the VM boots until `vmrunner image template` or `serve` made a "
                "new one",
                *(self.name, former.key),
            )

    def _room(self, order: Order) -> None:
        """Refuse what the disk or the memory could not hold if every VM took all it may."""
        disk = launch_plan.growth(order.offer.disk) + sum(
            doctor.to_come(instance_dir.path, instance_dir.read(state_dir.PLAN) or {})
            for instance_dir in self.state.instance_dirs()
        )
        free = shutil.disk_usage(self.state.path).free
        if disk > free:
            raise NoCapacity(
                f"disk: the VMs here may grow by {disk // MiB} MiB, {self.state.path} has "
                f"{free // MiB} MiB free",
                hint="ask for a smaller --disk, or free some space",
            )
        memory = doctor.memory("MemAvailable") + doctor.memory("SwapFree")
        memory = max(0, memory - doctor.untouched(self.state, self._mark))
        if order.offer.memory > memory:
            raise NoCapacity(
                f"memory: {order.offer.memory // MiB} MiB asked, {memory // MiB} MiB not taken",
                hint="ask for less --memory, or wait until another VM ends",
            )

    def template_maker(self) -> TemplateMaker:
        from vmrunner.providers.qemu.template_maker import QemuTemplateMaker

        return QemuTemplateMaker(self)

    def wanted_templates(self) -> Sequence[tuple[Spec, Shape]]:
        return templates.wanted(self.options.cache_dir, now=time.time())

    # --- life and death ---

    def look(self, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        return sweep.look(self.state, self._mark, self.scope, ids)

    def sweep(self) -> Iterator[Page]:
        now = time.time()
        try:
            found = sweep.resources(self.state, self._mark, self.scope)
        except OSError as error:
            yield Page(scope=self.scope, kind=Kind.INSTANCE, error=str(error), time=now)
            return
        self.state.prune(now, remember=_REMEMBER, half_made=_HALF_MADE)
        yield Page(scope=self.scope, kind=Kind.INSTANCE, resources=found, time=now)

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        return {ref: self._delete(ref, force=force) for ref in refs}

    def _delete(self, ref: Ref, *, force: bool) -> Outcome:
        if ref.scope != self.scope or ref.kind is not Kind.INSTANCE:
            return Outcome(fate=Fate.FAILED, error=f"{ref.scope} is not {self.scope}")
        try:
            return sweep.end(self.state, self._mark, ref.id, now=time.time(), force=force)
        except OSError as error:
            return Outcome(fate=Fate.FAILED, error=str(error))

    def lower(self, ref: Ref, due: float) -> None:
        instance_dir = self.state.instance_dir(ref.id)
        if ref.scope != self.scope or instance_dir is None or not instance_dir.held:
            raise BadOrder(f"{ref.id} does not run here")
        try:
            sweep.lower(instance_dir, due)
        except OSError as error:
            raise Uncertain(f"{ref.id}: {error}") from error

    def used(self, ref: Ref) -> HostUsage | None:
        return usage.used(self.state, self._mark, ref.id) if ref.scope == self.scope else None

    def console(self, ref: Ref) -> str:
        instance_dir = self.state.instance_dir(ref.id)
        if instance_dir is not None and (
            text := state_dir.console_tail(instance_dir.path, CONSOLE_BYTES)
        ):
            return text
        tombstone: Mapping[str, Any] = self.state.tombstone(ref.id) or {}
        return str(tombstone.get("console", ""))

    def check(self) -> Sequence[Finding]:
        return doctor.check(self.options, self.state)


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Translate the errors of a launch. Nothing was created: the directory was not yet under its
    name."""
    try:
        yield
    except OSError as error:
        where = Path(str(error.filename)).name if error.filename else "state directory"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoCapacity(f"the disk is full: {error}", hint="free some space") from error
        raise BadOrder(f"{where}: {error.strerror or error}") from error
