"""Bugs to plant in what odd clouds need: no names, no places, no last words (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

ODD = "tests/faults/test_odd_clouds.py"
CHANNEL = "tests/contract/test_channel.py"
STREAM = "tests/unit/lib/test_websocket_channel.py"
DEFINITIONS = "tests/unit/core/test_definitions.py"
LIFE = "tests/unit/services/test_longest_life.py"
LIFECYCLE = "tests/unit/core/test_lifecycle.py"
REAP_PASS = "tests/unit/reaper/test_reap_pass.py"
PROVIDER = "tests/contract/test_provider.py"

BUGS: Final = (
    Bug(
        "rows: by tag alone",
        "core/row_index.py",
        'return self._by_id.get(resource.instance or "") or self._recorded(resource)',
        'return self._by_id.get(resource.instance or "")',
        "tests/unit/core/test_reap_rules.py::test_a_vm_without_our_name_is_known_by_its_reference",
    ),
    Bug(
        "rows: say nothing of a VM that two rows claim",
        "core/row_index.py",
        "return recorded if named and recorded and named.id != recorded.id else None",
        "return None",
        "tests/unit/core/test_reap_rules.py::test_a_tag_that_names_another_row_is_told",
    ),
    Bug(
        "rows: an orphan without a name is not looked up again",
        "reaper/reap_pass.py",
        "(instances.known(named) or instances.recorded([kill.ref]))",
        "instances.known(named)",
        f"{REAP_PASS}::test_an_orphan_without_a_name_is_compared_by_its_reference",
    ),
    Bug(
        "names: whoever took over waits for a look",
        "engine/reconciler.py",
        "if young and not self._launcher.is_pending(row.id):",
        "if False and not self._launcher.is_pending(row.id):",
        f"{ODD}::test_whoever_takes_over_sends_the_order_again",
    ),
    Bug(
        "channel: a half-closed WebSocket is said to go on",
        "lib/websocket_channel.py",
        "    half_closes = False",
        "    half_closes = True",
        f"{CHANNEL}::test_one_way_ends_and_the_other_goes_on",
    ),
    Bug(
        "channel: tell nobody that stdin ended",
        "lib/websocket_channel.py",
        "await connection.send(bytes([_END, _STDIN]))",
        "await connection.send(bytes([_STDIN, _END]))",
        f"{STREAM}::test_the_program_hears_that_its_input_ended",
    ),
    Bug(
        "channel: a slow reader is a dead server",
        "lib/websocket_channel.py",
        "                if not self._stalled:\n",
        "                if True:\n",
        f"{STREAM}::test_a_reader_that_takes_its_time_is_no_dead_server",
    ),
    Bug(
        "channel: follow a redirect with our credentials",
        "lib/websocket_channel.py",
        "return exc  # credentials",
        "return super().process_redirect(exc)  # credentials",
        f"{STREAM}::test_credentials_follow_no_redirect",
    ),
    Bug(
        "channel: forget why a stream ended once paramiko has it",
        "session/ssh/paramiko_patches.py",
        "        wire._ending = ending\n",
        "",
        f"{STREAM}::test_the_words_outlive_the_hand_over_to_paramiko",
    ),
    Bug(
        "units: take an exit code of 0 for success",
        "core/lifecycle.py",
        "if seen is not None and (code or seen.signal):",
        "if seen is not None and (code is not None or seen.signal):",
        f"{LIFECYCLE}::test_a_container_without_a_word_ends_by_what_was_seen",
    ),
    Bug(
        "units: conclude without asking the system",
        "engine/sessions.py",
        "end_of_container(end, self._container_end(active))",
        "end_of_container(end, None)",
        f"{ODD}::test_the_system_is_asked_how_a_container_ended",
    ),
    Bug(
        "kinds: a definition lives as long as a VM",
        "core/sweep_view.py",
        "    if resource.ref.kind is Kind.DEFINITION:\n        return None\n",
        "",
        f"{DEFINITIONS}::test_no_time_of_a_vm_ends_one",
    ),
    Bug(
        "kinds: end a definition that a row names",
        "core/reap_rules.py",
        "and resource.ref.id not in self.used",
        "and bool(resource.ref.id)",
        f"{DEFINITIONS}::test_one_that_may_be_used_lives",
    ),
    Bug(
        "places: what cannot be placed is an attempt",
        "engine/completion.py",
        "row, Death.REFUSED, end, counted=False)\n\n    def fitting",
        "row, Death.REFUSED, end)\n\n    def fitting",
        f"{ODD}::test_what_cannot_be_placed_is_followed_by_the_next_offer",
    ),
    Bug(
        "places: try the same offer for ever",
        "engine/completion.py",
        "if _place(offer) not in unfit)",
        "if offer.usd_hour >= 0)",
        f"{ODD}::test_where_nothing_can_be_placed_the_build_ends",
    ),
    Bug(
        "life: only the configuration says how long",
        "config/longest_life.py",
        "if driver is not None and driver.max_ttl < most:",
        "if driver is not None and driver.max_ttl < 0:",
        f"{LIFE}::test_a_longer_life_is_refused_before_it_is_queued",
    ),
    Bug(
        "life: a row ends when its build says",
        "engine/launcher.py",
        "return most if driver is None else min(most, driver.max_ttl)",
        "return most",
        "tests/unit/engine/test_launcher.py::test_no_vm_is_promised_more_than_its_kind_can_give",
    ),
)
