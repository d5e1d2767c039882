"""Bugs to plant in channels and boxes (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

CHANNEL = "tests/contract/test_channel.py"
BOX = "tests/contract/test_box.py"
REGISTRY = "tests/unit/providers/test_registry.py"
FORMER = "tests/contract/test_former_port.py"

BUGS: Final = (
    Bug(
        "channel: wait for the connection",
        "lib/channels.py",
        """            stream.setblocking(False)
            stream.connect(address)""",
        "            stream.connect(address)",
        f"{CHANNEL}::test_it_begins_without_waiting_and_can_be_polled",
    ),
    Bug(
        "channel: every address is of this host",
        "lib/channels.py",
        "return False  # a host name",
        "return True",
        f"{CHANNEL}::test_tcp_to_elsewhere_is_not_local",
    ),
    Bug(
        "channel: TCP, whatever the provider gives",
        "session/ssh/banner_probe.py",
        "self._channel.open(self._address)",
        "TCP.open(self._address)",
        f"{CHANNEL}::test_ssh_runs_over_it",
    ),
    Bug(
        "channel: TCP, whatever the driver names",
        "providers/registry.py",
        "if driver is None or not driver.channel:",
        "if driver is None or driver.channel:",
        f"{REGISTRY}::test_a_channel_is_tcp_unless_the_driver_names_one",
    ),
    Bug(
        "box: a unit is offered whatever is asked",
        "providers/capabilities.py",
        "if missing := needs - box(provider).keeps:",
        "if missing := needs - box(provider).keeps - needs:",
        f"{BOX}::test_what_a_unit_cannot_keep_is_refused",
    ),
    Bug(
        "box: only the offers look at a unit's network",
        "providers/capabilities.py",
        """    _check_box(provider, _of_network(network))
""",
        "",
        f"{BOX}::test_an_order_without_a_network_is_refused_too",
    ),
    Bug(
        "box: tell a unit of Docker",
        "session/job.py",
        "**job.box.job_fields(spec),",
        "**DOCKER.job_fields(spec),",
        f"{BOX}::test_a_build_ends_with_its_log_and_exit_code",
    ),
    Bug(
        "box: make a container in a unit that waits",
        "session/warm_up.py",
        "ahead = job.box.ahead(shape, spec.network)",
        "ahead = DOCKER.ahead(shape, spec.network)",
        f"{BOX}::test_a_vm_that_waits_is_made_ready_and_serves",
    ),
    Bug(
        "ssh: leave open what was handed out",
        "cli/commands/ssh.py",
        "        stack.enter_context(stream)\n",
        "",
        f"{CHANNEL}::test_the_systems_ssh_takes_it_too",
    ),
    Bug(
        "take a driver that tells no wall for one that has it",
        "providers/capabilities.py",
        "    if not isinstance(provider, HoldsNoNetwork) or not provider.holds_no_network:",
        "    if isinstance(provider, HoldsNoNetwork) and not provider.holds_no_network:",
        f"{FORMER}::test_what_a_former_driver_does_not_tell_has_defaults",
    ),
    Bug(
        "ask a driver of a former port how often it may be asked",
        "providers/retired_providers.py",
        "    return provider.look_every if isinstance(provider, PacesLooks) else LookPace()",
        "    return provider.look_every",
        f"{FORMER}::test_what_a_former_driver_does_not_tell_has_defaults",
    ),
)
