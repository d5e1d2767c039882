"""Bugs to plant in what keeps a build from a network, in parking and in what clouds read of the
environment (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

NONE = "tests/integration/test_network_none_in_clouds.py"
WALL, DNS = "tests/integration/test_local_wall.py", "tests/unit/providers/qemu/test_dns.py"

PARKING = "tests/integration/test_gce_parking.py"

COALESCED = "tests/unit/providers/common/test_coalesced_read.py"

BUGS: Final = (
    Bug(
        "answer who asked amid a call with what was read before",
        "providers/common/coalesced_read.py",
        """        questions = [self._waiting.popleft() for _ in range(len(self._waiting))]
        values: Mapping[K, V] = {}
        failed: Exception | None = None
        try:
            values = self._read([question.key for question in questions])
        except Exception as error:  # noqa: BLE001 - each of them raises it
            failed = error
""",
        """        values: Mapping[K, V] = {}
        failed: Exception | None = None
        try:
            values = self._read([question.key for question in self._waiting])
        except Exception as error:  # noqa: BLE001 - each of them raises it
            failed = error
        questions = [self._waiting.popleft() for _ in range(len(self._waiting))]
""",
        f"{COALESCED}::test_an_answer_is_read_after_its_question",
    ),
    Bug(
        "EC2: a disrupted zone holds up the builds of all",
        "providers/ec2/metadata_service.py",
        "            if not found:\n                raise\n",
        "            raise\n",
        "tests/integration/test_ec2_first_contact.py::test_a_disrupted_zone_holds_up_no_other_seal",
    ),
    Bug(
        "EC2: each build looks for itself at its metadata service",
        "providers/ec2/metadata_service.py",
        "options = read(ref.id) or {}",
        "options = self._options(region, [ref.id]).get(ref.id) or {}",
        "tests/integration/test_ec2_first_contact.py::test_builds_that_start_at_once_share_looks",
    ),
    Bug(
        "network none: nobody asks for a wall",
        "providers/capabilities.py",
        "    _check_wall(provider, spec)\n",
        "",
        f"{NONE}::test_root_without_a_network_needs_a_wall",
    ),
    Bug(
        "network none: EC2's usual groups",
        "providers/ec2/options.py",
        "return closed or self.security_groups\n",
        "return self.security_groups\n",
        f"{NONE}::test_ec2_launches_it_into_its_own_groups",
    ),
    Bug(
        "network none: EC2's usual subnets",
        "providers/ec2/options.py",
        "return (closed and self.subnets_none) or self.subnets",
        "return self.subnets",
        f"{NONE}::test_ec2_launches_it_into_its_own_groups",
    ),
    Bug(
        "network none: nobody reads what goes out of EC2",
        "providers/ec2/doctor.py",
        "found = [*ways_out(groups), *holes(",
        "found = [*holes(",
        f"{NONE}::test_ec2_doctor_finds_the_rule_of_a_new_group",
    ),
    Bug(
        "network none: EC2 launches into an open place",
        "providers/ec2/provider.py",
        "if spec.network is Network.NONE and self.holds_no_network:",
        "if False:",
        f"{NONE}::test_ec2_launches_nothing_into_an_open_place",
    ),
    Bug(
        "network none: Amazon's resolver counts for nothing",
        "providers/ec2/doctor.py",
        'if attribute["EnableDnsSupport"]["Value"]:',
        "if False:",
        f"{NONE}::test_ec2_doctor_is_content_with_a_closed_place",
    ),
    Bug(
        "network none: Google's usual tags",
        "providers/gce/create_request.py",
        "options.tags_for(order.network)",
        "options.network_tags",
        f"{NONE}::test_gce_launches_it_with_its_own_tags",
    ),
    Bug(
        "network none: a denial anywhere will do",
        "providers/gce/isolation.py",
        "return whole and str(_WORLD) in list(rule.destination_ranges)",
        "return whole",
        f"{NONE}::test_gce_doctor_tells_what_goes_out",
    ),
    Bug(
        "network none: Azure's usual group",
        "providers/azure/options.py",
        "closed = network is Network.NONE and self.security_group_none",
        "closed = None",
        "tests/unit/providers/azure/test_create_request.py",
    ),
    Bug(
        "network none: Azure's resolver counts for nothing",
        "providers/azure/isolation.py",
        "if not resolver or _allows(resolver[0]) or not _is_of_all_traffic(resolver[0]):",
        "if False:",
        "tests/unit/providers/azure/test_isolation.py::test_network_none_lets_nothing_out",
    ),
    Bug(
        "Azure's WireServer is the internet",
        "providers/qemu/network.py",
        "    WIRE_SERVER,\n",
        "",
        WALL,
    ),
    Bug(
        "Azure's resolver is one of the internet",
        "providers/qemu/dns.py",
        "(*network.SPECIAL, *own)",
        "own",
        f"{DNS}::test_a_host_with_private_resolvers_uses_a_public_one",
    ),
    Bug(
        "a suspension that failed is never tried again",
        "providers/gce/parking.py",
        "if failed is not None and not isinstance(failed.error, _NO_ROOM):",
        "if False:",
        f"{PARKING}::test_a_suspension_that_failed_once_is_tried_again",
    ),
    Bug(
        "a stop waits for its guest",
        "providers/ec2/parking.py",
        "_ask(client, STOP, ref, SkipOsShutdown=True)",
        "_ask(client, STOP, ref)",
        "tests/integration/test_ec2_parking.py::test_a_stop_waits_for_no_guest",
    ),
    Bug(
        "what is parked was never written out",
        "session/warm_up.py",
        "if job.spec.kind is PoolKind.PARKED:",
        "if False:",
        "tests/unit/session/test_warm_up.py",
    ),
    Bug(
        "an empty variable is a credential",
        "store/urls.py",
        "    _drop_empty()\n",
        "",
        "tests/integration/test_store_endpoints.py::test_a_variable_without_a_value_is_no_credential",
    ),
    Bug(
        "EC2: a page of HTML is an answer",
        "providers/ec2/client.py",
        'if api.service == "ec2" and _is_page(answer):',
        "if False:",
        "tests/integration/test_vendor_limits.py::test_a_page_from_ec2s_gateway_is_one_line",
    ),
    Bug(
        "Compute Engine: no address left ends the build",
        "providers/gce/error_codes.py",
        '        "IP_SPACE_EXHAUSTED",\n        "IP_SPACE_EXHAUSTED_WITH_DETAILS",\n',
        "",
        "tests/unit/providers/gce/test_error_codes.py",
    ),
)
