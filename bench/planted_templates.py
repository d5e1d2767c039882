"""Planted bugs in templates, their channel and what waits in a VM."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

TEMPLATES: Final = "tests/unit/providers/qemu/test_templates.py"

#: Of frozen VMs and of what waits in them.
BUGS: Final = (
    Bug(
        "template: one for all networks",
        "providers/qemu/templates.py",
        '        "network": order.network.inside.value,\n        "shape"',
        '        "shape"',
        f"{TEMPLATES}::test_the_key_covers_what_a_clone_must_share",
    ),
    Bug(
        "template: one for all hosts under KVM",
        "providers/qemu/templates.py",
        '"host": _host() if accel == "kvm" else _clock(),',
        '"host": "",',
        f"{TEMPLATES}::test_the_key_covers_the_hosts_processor",
    ),
    Bug(
        "template: an emulated VM keeps the pace of any host",
        "providers/qemu/templates.py",
        '"host": _host() if accel == "kvm" else _clock(),',
        '"host": _host() if accel == "kvm" else "",',
        f"{TEMPLATES}::test_the_key_covers_the_hosts_processor",
    ),
    Bug(
        "template: one for all builds of libslirp",
        "providers/qemu/templates.py",
        "for pattern in _SLIRP:",
        "for pattern in ():",
        f"{TEMPLATES}::test_the_key_covers_the_builds_of_qemu_and_its_network",
    ),
    Bug(
        "template: use whatever the files hold",
        "providers/qemu/templates.py",
        "return None if different else Template(directory)",
        "return Template(directory)",
        f"{TEMPLATES}::test_a_changed_template_is_not_used",
    ),
    Bug(
        "template: its VMs outlive their maker",
        "engine/early_deaths.py",
        "Death.ABANDONED if membership.member_gone(row.owner) else None",
        "None",
        "tests/faults/test_template_making.py",
    ),
    Bug(
        "template: end its VMs while they are made",
        "engine/early_deaths.py",
        "Death.ABANDONED if membership.member_gone(row.owner) else None",
        "Death.ABANDONED",
        "tests/faults/test_template_making.py",
    ),
    Bug(
        "template: engines drive its VMs",
        "ledger/open_rows.py",
        "else _OF_ENGINES",
        "else _EVERY",
        "tests/integration/test_ledger_changes.py::test_engines_mind_a_templates_vm_once_it_dies",
    ),
    Bug(
        "template: its VM before its row",
        "images/template_vms.py",
        "if not (won := ledger.instances.start([launch], until=order.deadline)):",
        "create()\n        if not (won := ledger.instances.start([launch], until=order.deadline)):",
        "tests/faults/test_template_making.py",
    ),
    Bug(
        "template: no clone hears that it is another VM",
        "providers/qemu/command_line.py",
        '        *("-device", "vmgenid,guid=auto"),\n',
        "",
        f"{TEMPLATES}::test_each_clones_kernel_hears_that_it_is_another_vm",
    ),
    Bug(
        "identity port: anything is an acknowledgement",
        "providers/qemu/identity_port.py",
        "return self._heard == ACK",
        "return bool(self._heard)",
        "tests/unit/providers/qemu/test_identity_port.py::test_only_the_acknowledgement_is_one",
    ),
    Bug(
        "identity port: one machine id for all",
        "providers/qemu/identity_port.py",
        '"machine_id": uuid.uuid4().hex',
        '"machine_id": uuid.UUID(int=1).hex',
        "tests/unit/providers/qemu/test_identity_port.py::test_each_vm_gets_its_own_randomness_and_ids",
    ),
    Bug(
        "guest: a container of another shape for a build",
        "guest/prestart.py",
        'if ready and _fits(ready["shape"], job) and',
        "if ready and",
        "tests/integration/test_resident.py::test_another_shape_gets_a_container_of_its_own",
    ),
    Bug(
        "guest: make a container in a build's way",
        "guest/prestart.py",
        "if place.read(READY) or place.job():",
        "if False:",
        "tests/integration/test_resident.py::test_a_container_made_late_touches_no_build",
    ),
    Bug(
        "guest: no end by the time since it woke",
        "guest/identity.py",
        "time.time() >= at or _boot_clock() >= since_boot",
        "time.time() >= at",
        "tests/unit/guest/test_identity.py::test_it_ends_by_either_clock",
    ),
)
