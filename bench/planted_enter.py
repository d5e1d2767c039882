"""Bugs to plant in terminals and ports over a server (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

TERMINALS: Final = "tests/integration/test_http_terminals.py"
FRAMES: Final = "tests/integration/test_hostile_frames.py"
PORTS: Final = "tests/integration/test_enter_ports.py"
PAGES: Final = "tests/integration/test_port_pages.py"
CLI: Final = "tests/integration/test_cli_enter.py"

BUGS: Final = (
    Bug(
        "enter: admin enters too",
        "server/authentication.py",
        "own = scopes in ((TokenScope.METRICS,), (TokenScope.ENTER,))",
        "own = scopes == (TokenScope.METRICS,)",
        f"{TERMINALS}::test_no_other_scope_enters",
    ),
    Bug(
        "enter: any page opens a WebSocket with the cookie",
        "server/authentication.py",
        "    if is_plain or not origin or origin != headers.get",
        "    if origin and False or not headers.get",
        f"{TERMINALS}::test_a_cookie_opens_it_for_our_pages_alone",
    ),
    Bug(
        "enter: a terminal outlives its token",
        "server/routes/terminals.py",
        "    if not await still_valid(socket):",
        "    if False:",
        f"{TERMINALS}::test_a_terminal_ends_with_its_token_and_its_build",
    ),
    Bug(
        "enter: a terminal shows secrets",
        "server/entered_streams.py",
        "            return self._masker.feed(data), stderr, False",
        "            return data, stderr, False",
        f"{TERMINALS}::test_a_secret_is_masked_at_a_terminal",
    ),
    Bug(
        "enter: what may become a secret is held for ever",
        "server/entered_streams.py",
        "            if not await self._bell.wait(HELD if holds else None):",
        "            if not await self._bell.wait(None):",
        f"{TERMINALS}::test_a_secret_is_masked_at_a_terminal",
    ),
    Bug(
        "enter: a quota that binds containers lets root in",
        "server/routes/terminals.py",
        "        if not order.container:\n",
        "        if order.container:\n",
        f"{TERMINALS}::test_a_bound_token_is_no_root_of_a_vm",
    ),
    Bug(
        "enter: nobody notes an entry",
        "services/entering.py",
        "    ledger.actions.add(actor, verb, build, now, detail)\n",
        "",
        f"{TERMINALS}::test_an_entry_is_an_action_and_an_event",
    ),
    Bug(
        "enter: a silent VM is never asked",
        "server/entered_streams.py",
        "            await self._ask(self._stream.check)\n",
        "",
        f"{TERMINALS}::test_a_vm_that_falls_silent_is_noticed",
    ),
    Bug(
        "enter: idle for ever",
        "server/entered_streams.py",
        "if now - self._active >= self._idle:",
        "if now - self._active < 0:",
        f"{TERMINALS}::test_an_idle_terminal_is_closed",
    ),
    Bug(
        "enter: small messages wait without number",
        "server/websocket_connections.py",
        "if self.queue.qsize() >= WAITING:",
        "if self.queue.qsize() < 0:",
        f"{FRAMES}::test_a_frame_that_is_none_ends_its_own_terminal",
    ),
    Bug(
        "ports: a connection for each",
        "server/port_connections.py",
        "if shared.connection is not None and shared.connection.serves(row):",
        "if shared.connection is not None and not shared.connection.serves(row):",
        f"{PORTS}::test_ports_of_a_vm_share_one_connection",
    ),
    Bug(
        "ports: a VM of another host is dialled",
        "services/entering.py",
        "if not self._reaches(instance):",
        "if False:",
        f"{PORTS}::test_a_vm_of_another_host_names_its_node",
    ),
    Bug(
        "ports: a proof is worth any port",
        "server/port_grants.py",
        'text = f"{use}\\0{build}\\0{port}\\0{until}".encode()',
        'text = f"{use}\\0{build}\\0{until}".encode()',
        f"{PAGES}::test_a_cookie_is_of_one_port_alone",
    ),
    Bug(
        "ports: a key is as good as a cookie",
        "server/port_grants.py",
        'text = f"{use}\\0{build}\\0{port}\\0{until}".encode()',
        'text = f"{build}\\0{port}\\0{until}".encode()',
        f"{PAGES}::test_a_cookie_is_of_one_port_alone",
    ),
    Bug(
        "ports: a token goes into the VM",
        "server/port_headers.py",
        'b"host", b"authorization", b"cookie",',
        'b"host", b"cookie",',
        f"{PAGES}::test_nothing_of_a_caller_goes_into_the_vm",
    ),
    Bug(
        "ports: a VM sets cookies of the page",
        "server/port_headers.py",
        'elif name == b"set-cookie" and own_origin:',
        'elif name == b"set-cookie":',
        f"{PAGES}::test_what_a_vm_sends_has_no_power_over_the_page",
    ),
    Bug(
        "ports: what a VM sends has the page's origin",
        "server/port_headers.py",
        'found += [(b"content-security-policy", SANDBOX), (b"referrer-policy", b"no-referrer")]',
        'found += [(b"referrer-policy", b"no-referrer")]',
        f"{PAGES}::test_what_a_vm_sends_has_no_power_over_the_page",
    ),
    Bug(
        "ports: another port's page uses the cookie",
        "server/port_pages.py",
        "if is_foreign or (site in",
        "if is_foreign and (site in",
        f"{PAGES}::test_another_ports_page_sends_nothing_here",
    ),
    Bug(
        "ports: a handover is worth more than a minute",
        "server/port_grants.py",
        "return login if int(until) == 0 or now < int(until) else None",
        "return login",
        f"{PAGES}::test_a_port_has_a_host_name_of_its_own",
    ),
    Bug(
        "client: a node that is gone is no error",
        "services/client/websocket.py",
        "            raise self._error or self._closed(error) from None",
        "            return None",
        f"{CLI}::test_a_node_that_is_killed_is_told_plainly",
    ),
    Bug(
        "leases: a held build ends with its client",
        "ledger/submitter_leases.py",
        "_b.state.not_in([BuildState.FINISHED.value, BuildState.HELD.value])",
        "_b.state != BuildState.FINISHED.value",
        "tests/integration/test_ledger_tokens.py::test_a_held_build_outlives_its_client",
    ),
    Bug(
        "enter: one VM's threads are everybody's",
        "server/entry_threads.py",
        "found = self._by_build.get(build)",
        'found = self._by_build.get(build := "")',
        "tests/integration/test_enter_fairness.py::test_a_silent_vm_holds_up_no_other",
    ),
    Bug(
        "enter: ceilings for all bind nobody who is root",
        "server/routes/terminals.py",
        "            ceilings.check_root(self._parts.settings(), principal.quota)",
        "            pass",
        f"{TERMINALS}::test_a_ceiling_for_all_lets_nobody_be_root",
    ),
    Bug(
        "ports: a redirect leads to another port",
        "server/port_headers.py",
        "if own_origin or (place := _kept_within(place, prefix, request_url)):",
        "if place:",
        "tests/unit/test_port_headers.py::test_a_redirect_of_this_server_stays_below_the_port",
    ),
    Bug(
        "ports: a right counts as long as its VM is silent",
        "server/port_proxy.py",
        "            await self.still_allowed()",
        "            pass",
        f"{PAGES}::test_a_right_that_ends_ends_a_socket_that_is_silent",
    ),
    Bug(
        "ports: chunks of a byte hold up all",
        "server/port_proxy.py",
        "SLICE: Final = 512",
        "SLICE: Final = 1 << 20",
        "tests/unit/test_port_proxy.py::test_chunks_of_a_byte_let_others_go_on",
    ),
    Bug(
        "client: the terminal stays raw",
        "cli/remote_command.py",
        "        termios.tcsetattr(_INPUT, termios.TCSADRAIN, before)",
        "        pass",
        f"{CLI}::test_a_person_enters_a_build_over_a_server",
    ),
    Bug(
        "enter: what another token may have is anybody's of its tenant",
        "server/routes/common.py",
        "    ceilings.check_entry(row, principal.quota)\n",
        "",
        "tests/integration/test_http_terminals.py::test_nobody_enters_what_he_could_not_submit",
    ),
    Bug(
        "enter: answers to pings that nobody takes are kept",
        "server/websocket_connections.py",
        "        self.transport.pause_reading()  # each ping has an answer\n",
        "",
        "tests/integration/test_hostile_frames.py"
        "::test_who_takes_no_answer_to_pings_is_read_no_more",
    ),
)
