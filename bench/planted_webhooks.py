"""Bugs to plant in what webhooks are told (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

OUTBOX, SENDER = "ledger/outbox.py", "services/notifications.py"
TESTS = "tests/integration/test_webhooks.py"

BUGS: Final = (
    Bug(
        "ask again what was refused before what was never told",
        OUTBOX,
        ".order_by(_o.due, _o.id)",
        ".order_by(_o.id)",
        f"{TESTS}::test_many_that_are_refused_hold_no_other_back",
    ),
    Bug(
        "note an event as sent before it is",
        SENDER,
        "        now = self._clock()\n        try:\n            error",
        "        now = self._clock()\n        self._ledger.outbox.sent(notification, now)\n"
        "        try:\n            error",
        f"{TESTS}::test_whatever_is_no_2xx_is_tried_again",
    ),
    Bug(
        "send without the lease",
        SENDER,
        "        if not self._holds():\n            return\n        try:",
        "        self._holds()\n        try:",
        f"{TESTS}::test_a_crash_between_send_and_mark_sends_it_again "
        f"{TESTS}::test_while_one_node_sends_another_does_not",
    ),
    Bug(
        "tell a held build's end twice",
        OUTBOX,
        " and _KNOWN(connection, **about).first() is None:",
        ":",
        f"{TESTS}::test_a_build_that_is_held_is_told_once",
    ),
    Bug(
        "follow a redirect with what is signed",
        "services/client/webhooks.py",
        "follow_redirects=False",
        "follow_redirects=True",
        f"{TESTS}::test_whatever_is_no_2xx_is_tried_again",
    ),
    Bug(
        "sign the body without its time",
        "services/client/webhooks.py",
        'timestamp.encode() + b"." + body',
        "body",
        f"{TESTS}::test_an_event_is_sent_signed_and_once",
    ),
    Bug(
        "bound only the parts of a request",
        "services/client/webhooks.py",
        "asyncio.run(asyncio.wait_for(_code(url, headers, body), WHOLE))",
        "asyncio.run(_code(url, headers, body))",
        f"{TESTS}::test_a_receiver_that_drips_is_given_up_in_time",
    ),
    Bug(
        "let one event hold the others back",
        SENDER,
        "                if failures == FAILURES:\n                    break",
        "                if failures:\n                    break",
        f"{TESTS}::test_an_event_that_is_refused_holds_no_other_back",
    ),
    Bug(
        "count a delete that failed as a success",
        "providers/call_counts.py",
        "PARTLY if failed else OK",
        "OK",
        "tests/unit/providers/test_call_counts.py",
    ),
    Bug(
        "make new spans at each export",
        "core/trace_context.py",
        'return _hash(f"{build}/{what}", 16)',
        'import os; return _hash(f"{build}/{what}/{os.urandom(8)!r}", 16)',
        "tests/integration/test_traces.py::test_the_same_ids_each_time",
    ),
    Bug(
        "forget whose child a build is",
        "services/submit.py",
        "trace_context.parse(traceparent or self.traceparent)",
        "trace_context.parse(traceparent)",
        "tests/integration/test_traces.py::test_the_submitters_environment_has_the_parent",
    ),
    Bug(
        "end a build whose event is lost",
        "ledger/build_writes.py",
        "                put_ended(connection, build, now)",
        "                pass  # as if it were told later",
        "tests/faults/test_lives.py::test_a_build_lives_and_leaves_nothing",
    ),
)
