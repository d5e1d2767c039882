"""Bugs to plant in who sees and pays for what (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

TENANTS = "tests/integration/test_http_tenants.py"
OIDC = "tests/integration/test_http_oidc.py"
ATTACKS = "tests/integration/test_http_attacks.py"
BOUNDS = "tests/integration/test_http_bounds.py"
CEILINGS = "tests/integration/test_http_ceilings.py"
TURNS = "tests/unit/lib/test_turns.py"
LIST_TURNS = "tests/unit/server/test_tenant_turns.py"
LISTED = "tests/unit/server/test_listed_builds.py"
QUEUE = "tests/unit/services/test_kept_queue.py"
DISGUISED = "tests/unit/lib/test_disguised_repositories.py"

BUGS: Final = (
    Bug(
        "find builds by the labels that they wear",
        "ledger/labels.py",
        "return [*having(_b.id, own), _of_tenant(own)] if own else []",
        "return having(_b.id, own)",
        f"{TENANTS}::test_a_name_leads_to_the_principals_own",
    ),
    Bug(
        "find VMs by the labels that their builds wear",
        "ledger/labels.py",
        ".where(_l.name == name, _l.value == value, _of_tenant({name: value}))",
        ".where(_l.name == name, _l.value == value)",
        f"{TENANTS}::test_a_worn_label_opens_nothing_of_anybodys",
    ),
    Bug(
        "let a tenant say what others' tokens force",
        "services/admission.py",
        "if foreign := sorted(changed & forced):",
        "if foreign := []:",
        f"{TENANTS}::test_a_label_that_others_force_is_refused",
    ),
    Bug(
        "forget the names that issuers' rules force",
        "services/admission.py",
        "forced.update(*(rule.labels for rule in submission.settings.server.identity_rules))",
        "pass",
        f"{TENANTS}::test_a_label_that_others_force_is_refused",
    ),
    Bug(
        "free the label of a token that expired",
        "ledger/labels.py",
        'where(_t.labels != "{}", _t.revoked_at.is_(None))',
        'where(_t.labels != "{}", _t.revoked_at.is_(None), _t.expires_at.is_(None))',
        f"{TENANTS}::test_a_name_is_free_once_no_token_forces_it",
    ),
    Bug(
        "let a budget pay for who wears its label",
        "ledger/budgets.py",
        "self._accounts.concerned(credited_labels(labels, tenant, self._forced), actor)",
        "self._accounts.concerned(labels, actor)",
        "tests/integration/test_budgets.py::test_a_worn_label_is_paid_by_nobody_else",
    ),
    Bug(
        "tell a webhook of who wears its label",
        "ledger/outbox.py",
        "labels = credited_labels(build.spec.labels, build.tenant, forced_names(connection))",
        "labels = build.spec.labels",
        "tests/integration/test_webhooks.py::test_a_worn_label_is_told_to_nobody",
    ),
    Bug(
        "count others' builds as runners",
        "server/routes/builds.py",
        "tenant=principal.tenant if mine else None",
        "tenant=None",
        f"{TENANTS}::test_nobody_elses_build_counts_as_a_runner",
    ),
    Bug(
        "take one sub of two issuers for one actor",
        "server/oidc.py",
        'return f"{OIDC}{issuer}#{sub}"',
        'return f"{OIDC}{sub}"',
        f"{OIDC}::test_issuers_are_no_actors_of_each_other",
    ),
    Bug(
        "believe an issuer's keys for ever",
        "server/oidc.py",
        "if self._now() - issued.fetched_at >= BELIEVED:",
        "if False:",
        f"{OIDC}::test_keys_of_an_issuer_that_is_gone_count_a_day",
    ),
    Bug(
        "let all wait for an issuer that hangs",
        "server/oidc.py",
        "if not issued.callers.acquire(blocking=False):",
        "if not issued.callers.acquire():",
        f"{OIDC}::test_an_issuer_that_hangs_keeps_no_other_waiting",
    ),
    Bug(
        "bring a bare repository",
        "lib/globs.py",
        "if file and name == _HEAD:",
        "if False:",
        f"{DISGUISED}::test_a_repository_in_disguise_does_not_come",
    ),
    Bug(
        "look at a directory anew for each file in it",
        "lib/globs.py",
        "            self._below[component] = directory\n",
        "",
        "tests/unit/lib/test_globs.py::test_a_directory_is_held_against_globs_once",
    ),
    Bug(
        "let a token reach what its quota does not",
        "services/ceilings.py",
        "if quota.network is not None and not ceilings.covers(quota.network, spec.network):",
        "if False:",
        f"{CEILINGS}::test_a_token_reaches_no_more_than_its_quota",
    ),
    Bug(
        "let a default be above the ceiling",
        "services/ceilings.py",
        "return default if ceilings.covers(most, default) else most",
        "return default",
        f"{CEILINGS}::test_limits_hold_all_alike",
    ),
    Bug(
        "let a caller name any image of the account",
        "services/ceilings.py",
        "if not ceilings.image_allowed(spec.image, names | set(listed or ())):",
        "if False:",
        f"{CEILINGS}::test_a_caller_boots_no_image_of_another_product",
    ),
    Bug(
        "forget the image of what is run again",
        "services/run_again.py",
        "ceilings.check_image(spec, submission.settings, submission.ledgers.open(), remote=True)",
        "pass",
        f"{CEILINGS}::test_a_caller_boots_no_image_of_another_product",
    ),
    Bug(
        "take a wildcard for all names below another",
        "core/ceilings.py",
        "same = pattern == host",
        "same = pattern.removeprefix(WILDCARD) in host",
        "tests/unit/core/test_ceilings.py::test_a_ceiling_covers_what_reaches_no_more",
    ),
    Bug(
        "let an agent open the network",
        "integrations/mcp/server.py",
        'if not covers(most, network_policy.policy(network, "network")):',
        "if False:",
        "tests/integration/test_mcp.py::test_no_tool_gives_more_network_than_allowed",
    ),
    Bug(
        "tell an event by the VM's own letters",
        "session/protocol.py",
        "{str(event.get('seq'))[:20]!r}",
        "{str(event.get('seq'))[:20]}",
        "tests/unit/session/test_protocol.py::test_what_a_lie_is_told_by_is_printable",
    ),
    Bug(
        "parse a text however long it is",
        "server/body_lengths.py",
        "if isinstance(value, str) and len(value) > limit:",
        "if False:",
        "tests/integration/test_http_lengths.py::test_no_field_takes_a_text_without_end",
    ),
    Bug(
        "take words of commands without end",
        "server/body_lengths.py",
        "if size > WORDS:",
        "if False:",
        "tests/integration/test_http_lengths.py::test_lists_and_tables_have_an_end",
    ),
    Bug(
        "take all large bodies of a caller at once",
        "server/request_bodies.py",
        "(asyncio.Semaphore(1), [])",
        "(asyncio.Semaphore(99), [])",
        "tests/unit/server/test_request_bodies.py::test_a_caller_has_one_large_body_at_a_time",
    ),
    Bug(
        "believe what a body in chunks tells of its length",
        "server/request_bodies.py",
        "most = min(most, SMALL)",
        "return await run_in_threadpool(_decoded, request, await whole(request, most), kind)",
        f"{BOUNDS}::test_a_body_in_chunks_is_small_or_has_a_turn",
    ),
    Bug(
        "let who has shown nothing wait for each other",
        "server/request_bodies.py",
        "if most <= SMALL:",
        "if length:",
        f"{BOUNDS}::test_a_body_in_chunks_is_small_or_has_a_turn",
    ),
    Bug(
        "decode large bodies where all are answered",
        "server/request_bodies.py",
        "return await run_in_threadpool(_decoded_in_turn, request, body, kind, turn)",
        "return _decoded_in_turn(request, body, kind, turn)",
        f"{BOUNDS}::test_a_large_body_holds_up_nobody",
    ),
    Bug(
        "count lines of secrets by one of their ends",
        "config/field_checks.py",
        "sum(len(secret.splitlines()) for secret",
        "sum(secret.count(b'\\n') + 1 for secret",
        "tests/integration/test_http_lengths.py::test_lists_and_tables_have_an_end",
    ),
    Bug(
        "keep a place in line of who has gone",
        "server/request_bodies.py",
        "        except BaseException:\n            self._leave(actor)\n",
        "        except BaseException:\n",
        "tests/unit/server/test_request_bodies.py::test_who_has_too_many_is_told_so",
    ),
    Bug(
        "look for any number of lines of secrets",
        "config/field_checks.py",
        "if lines > SECRET_LINES + len(value):",
        "if False:",
        "tests/integration/test_http_lengths.py::test_lists_and_tables_have_an_end",
    ),
    Bug(
        "hear no cancel while artifacts are extracted",
        "session/collect.py",
        "                if not free:\n                    self._pulse()\n",
        "",
        "tests/unit/session/test_extraction.py::test_a_cancel_is_heard_while_nothing_is_taken",
    ),
    Bug(
        "bound the sources of each tenant alone",
        "ledger/objects.py",
        "return own, _ALL_UNUSED_BYTES(connection).scalar()",
        "return own, own",
        f"{BOUNDS}::test_unused_sources_of_all_tenants_are_bounded",
    ),
    Bug(
        "bound the caches of each tenant alone",
        "ledger/caches.py",
        "                _drop_oldest(connection, total)\n",
        "                pass\n",
        "tests/integration/test_ledger_caches.py::test_all_tenants_together_have_so_much_at_most",
    ),
    Bug(
        "call the cookie alike at all ports",
        "server/authentication.py",
        "return f\"{_COOKIE}_{(scope.get('server') or ('', 0))[1]}\"",
        "return _COOKIE",
        f"{ATTACKS}::test_a_cookie_is_of_this_server_alone",
    ),
    Bug(
        "tell a caller which images are here",
        "services/admission.py",
        "if checked.spec.image is None or not",
        "if True or not",
        f"{ATTACKS}::test_an_image_that_is_not_here_tells_nothing_of_others",
    ),
    Bug(
        "work that is costly goes on while one rests",
        "lib/turns.py",
        "                    time.sleep(owed)\n",
        "                    self._lock.release()\n                    time.sleep(owed)\n"
        "                    self._lock.acquire()\n",
        f"{TURNS}::test_while_one_rests_no_other_works",
    ),
    Bug(
        "short works never rest",
        "lib/turns.py",
        "self._owed += time.thread_time() - began",
        "self._owed = time.thread_time() - began",
        f"{TURNS}::test_many_short_works_rest_as_one_long_does",
    ),
    Bug(
        "lists of a tenant take no turns",
        "server/routes/builds.py",
        '@router.get("/builds", responses=polled("BuildPage"), dependencies=[IN_TURN])',
        '@router.get("/builds", responses=polled("BuildPage"))',
        f"{BOUNDS}::test_while_others_ask_a_tenants_lists_take_turns",
    ),
    Bug(
        "a flood that began alone keeps its places",
        "server/tenant_turns.py",
        "if line.busy and self._others_ask(tenant):",
        "if line.busy == 1 and self._others_ask(tenant):",
        f"{LIST_TURNS}::test_a_flood_from_before_shrinks_to_one",
    ),
    Bug(
        "a tenant's lists follow each other without a rest",
        "server/tenant_turns.py",
        "self._later(min(self._clock() - began, LONGEST_TURN), end)",
        "end()",
        f"{LIST_TURNS}::test_beside_another_it_has_one_and_rests",
    ),
    Bug(
        "a list that hangs holds up all of its tenant",
        "server/tenant_turns.py",
        "timer = self._later(LONGEST_TURN, end)",
        "timer = self._later(LONGEST_TURN, lambda: None)",
        f"{LIST_TURNS}::test_what_hangs_holds_up_others_for_a_moment",
    ),
    Bug(
        "a turn that is given to who has left is lost",
        "server/tenant_turns.py",
        "            if not place.done():\n                line.busy += 1\n",
        "            line.busy += 1\n            if not place.done():\n",
        f"{LIST_TURNS}::test_a_turn_is_not_lost_on_who_leaves_meanwhile",
    ),
    Bug(
        "a list shows a build as it was before it changed",
        "server/listed_builds.py",
        "if kept is not None and kept.build is build and kept.beside == beside:",
        "if kept is not None and kept.beside == beside:",
        f"{LISTED}::test_whatever_changes_is_told",
    ),
    Bug(
        "a list gives a build the name or the reason of before",
        "server/listed_builds.py",
        "kept.build is build and kept.beside == beside:",
        "kept.build is build:",
        f"{LISTED}::test_whatever_changes_is_told",
    ),
    Bug(
        "rows of lists are the values of before",
        "ledger/row_reading.py",
        "        before = self._kept.get(row[0])\n"
        "        if before is not None and before[0] == row:\n",
        "        before = self._kept.get(row[0])\n        if before is not None:\n",
        "tests/unit/ledger/test_recent_rows.py",
    ),
    Bug(
        "a costly queue is looked at each time",
        "services/queue_reasons.py",
        "self._kept = found if spent > CHEAP else None",
        "self._kept = None",
        f"{QUEUE}::test_a_costly_queue_is_kept_for_a_while",
    ),
    Bug(
        "a queue that costs little is shown as it was",
        "services/queue_reasons.py",
        "self._kept = found if spent > CHEAP else None",
        "self._kept = found",
        f"{QUEUE}::test_a_queue_that_costs_little_is_never_old",
    ),
    Bug(
        "each VM of a list asks for its clock",
        "services/costs.py",
        "clocks = {(row.provider, row.scope) for several in rows.values() for row in several}",
        "clocks = [(row.provider, row.scope) for several in rows.values() for row in several]",
        "tests/integration/test_build_lists.py::test_each_clock_is_asked_once_for_a_list",
    ),
    Bug(
        "a build's second stay in the queue is overlooked",
        "ledger/row_codec.py",
        "if text.count(_QUEUED) == 1 and",
        "if text.count(_QUEUED) >= 1 and",
        "tests/unit/ledger/test_time_queued.py",
    ),
)
