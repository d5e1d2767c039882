"""Bugs to plant in what holds a VM to its allow-list (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

ALLOW: Final = "providers/qemu/allow"
WORLD: Final = "tests/integration/test_allow_list.py"
POLICY: Final = "tests/unit/config/test_network_policy.py"

BUGS: Final = (
    Bug(
        "allow-list: any name passes",
        f"{ALLOW}/proxy.py",
        "if not self._allow.permits(name, port):",
        "if name is None:",
        f"{WORLD}::test_what_is_not_on_the_list_is_refused",
    ),
    Bug(
        "allow-list: a wildcard without its dot",
        "model/allow_list.py",
        "name.removesuffix(pattern[1:])\n    return name.endswith(pattern[1:])",
        "name.removesuffix(pattern[2:])\n    return name.endswith(pattern[2:])",
        f"{POLICY}::test_names_and_ports_are_compared_whole",
    ),
    Bug(
        "allow-list: the private address of a name on it",
        "providers/qemu/network.py",
        "        ip daddr @denied meta l4proto tcp reject with tcp reset\n"
        "        ip daddr @denied reject with icmpx type admin-prohibited\n",
        "",
        f"{WORLD}::test_an_allowed_name_leads_to_no_private_address",
    ),
    Bug(
        "allow-list: QEMU in the proxy's own network, with UDP and all",
        f"{ALLOW}/process.py",
        "    syscalls.unshare(syscalls.NEWNET)\n",
        "",
        f"{WORLD}::test_no_other_packet_goes_anywhere",
    ),
    Bug(
        "allow-list: an encrypted hello",
        f"{ALLOW}/client_hello.py",
        "if found.keys() & _ENCRYPTED:",
        "if False:",
        "tests/unit/providers/qemu/test_allow_client_hello.py",
    ),
    Bug(
        "allow-list: a request with two lengths",
        f"{ALLOW}/http_request.py",
        'if {b"content-length", b"transfer-encoding"} <=',
        'if {b"nothing"} <=',
        "tests/unit/providers/qemu/test_allow_http_request.py",
    ),
    Bug(
        "allow-list: every name exists",
        f"{ALLOW}/dns_answers.py",
        "if not allow.knows(name):",
        "if False:",
        "tests/unit/providers/qemu/test_allow_names.py::test_no_other_name_exists",
    ),
    Bug(
        "allow-list: any number of names below a wildcard",
        f"{ALLOW}/lookup.py",
        "            self._below.take(1)\n",
        "            pass\n",
        "tests/unit/providers/qemu/test_allow_names.py"
        "::test_names_below_a_wildcard_leave_at_a_bounded_rate",
    ),
    Bug(
        "allow-list: a proxy that keeps its capabilities",
        f"{ALLOW}/process.py",
        "    syscalls.give_up_capabilities()\n",
        "",
        f"{WORLD}::test_the_proxy_has_neither_files_nor_privileges",
    ),
    Bug(
        "allow-list: where nobody can hold one",
        "providers/capabilities.py",
        "if not isinstance(provider, HoldsAllowLists) or not provider.holds_allow_lists:",
        "if provider is None:",
        "tests/unit/services/test_preflight.py::test_an_allow_list_that_nobody_can_hold_is_refused",
    ),
)
