"""Bugs to plant in the HTTP service (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

BOUNDS, BUILDS = "tests/integration/test_http_bounds.py", "tests/integration/test_http_builds.py"
PAGES = "tests/unit/server/test_log_stream.py"
ODD = "tests/integration/test_http_odd_bodies.py"

BUGS: Final = (
    Bug(
        "overlook a parameter that a route does not have",
        "server/routes/common.py",
        "if request.query_params and not route.dependant.query_params:",
        "if request.query_params and not route.dependant:",
        f"{ODD}::test_no_route_overlooks_a_parameter",
    ),
    Bug(
        "overlook the body of what ends a VM",
        "server/routes/instances.py",
        "    await request_bodies.model(request, EmptyBody)\n",
        "",
        f"{ODD}::test_what_ends_or_removes_overlooks_nothing",
    ),
    Bug(
        "show a tenant's VM by the beginning of its id to another",
        "ledger/instance_reads.py",
        "partial(_by_prefix, own)",
        "partial(_by_prefix, {})",
        "tests/integration/test_http_tenants.py::test_a_vm_is_found_by_the_beginning_of_its_id",
    ),
    Bug(
        "take half of a surrogate pair for text",
        "server/request_bodies.py",
        "    if halves:",
        "    if not halves:",
        f"{ODD}::test_half_a_surrogate_is_told_with_its_field",
    ),
    Bug(
        "count only the uploads that are stored",
        "services/uploads.py",
        "        coming = self._coming.add(self._tenant, more)\n",
        "        coming = more\n",
        f"{BOUNDS}::test_uploads_under_way_count",
    ),
    Bug(
        "count what a build waits for as unused",
        "ledger/objects.py",
        "_UNUSED: Final = (_o.kind == _SOURCE, _o.state == _STORED, ~_AWAITED)",
        "_UNUSED: Final = (_o.kind == _SOURCE, _o.state == _STORED)",
        f"{BOUNDS}::test_unused_sources_of_a_tenant_are_bounded",
    ),
    Bug(
        "keep a stream's slot when its reader has gone",
        "server/caller_slots.py",
        "            self._slots.give_back(self._principal)\n",
        "            pass\n",
        f"{BOUNDS}::test_streams_of_a_token_are_bounded",
    ),
    Bug(
        "wait for a reader for ever",
        "server/connections.py",
        "self.loop.call_later(STALLED, self.transport.abort)",
        "self.loop.call_later(3600 + STALLED, self.transport.abort)",
        f"{BOUNDS}::test_who_takes_nothing_holds_little_and_is_given_up",
    ),
    Bug(
        "wait for the head of a request for ever",
        "server/connections.py",
        "        if self._waits_for_head():\n            self.transport.abort()\n",
        "",
        f"{BOUNDS}::test_a_head_that_does_not_come_is_not_waited_for",
    ),
    Bug(
        "lose a line's beginning at the end of a chunk",
        "server/log_stream.py",
        "            begun, cut = _grown(begun, cut, data[at:])\n",
        "            begun, cut = data[at:], False\n",
        f"{PAGES}::test_pages_have_the_lines_of_the_log",
    ),
    Bug(
        "build another tenant's source again",
        "services/run_again.py",
        "    if row.tenant != principal.tenant:\n",
        "    if False:\n",
        f"{BUILDS}::test_a_source_is_built_again_for_its_tenant_alone",
    ),
)
