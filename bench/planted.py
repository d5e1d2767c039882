"""Bugs to plant in the pure core, the engine, the reaper and the ledger (`mutations.py`)."""

from __future__ import annotations

from typing import Final, NamedTuple

RULES, LIVES = "tests/unit/core/test_reap_rules.py", "tests/faults/test_lives.py"
ARMING = "tests/faults/test_arming.py"
GRACE, LAYERS = "tests/faults/test_grace.py", "tests/faults/test_layers.py"


class Bug(NamedTuple):
    """`old` becomes `new`, and these tests must notice."""

    name: str
    file: str  # under vmrunner/, or from the root: deploy/…, localclouds/…, packer/…
    old: str
    new: str
    tests: str  # a file, or file::test

    @property
    def path(self) -> str:
        outside = self.file.startswith(("deploy/", "localclouds/", "packer/"))
        return self.file if outside else f"vmrunner/{self.file}"


BUGS: Final = (
    Bug(
        "skip the intent row",
        "ledger/instances.py",
        "            _INSERT.many(connection, rows)\n",
        "",
        f"{LIVES}::test_a_build_lives_and_leaves_nothing",
    ),
    Bug(
        "trust one absence",
        "core/reap_rules.py",
        "if self.seen_again(self.memory.get((SightingKind.ABSENT, row.id)), row.created_at)",
        "if self.past_newborn(row)",
        f"{RULES}::test_a_row_closes_after_two_complete_absences",
    ),
    Bug(
        "trust one sighting of an orphan",
        "core/reap_rules.py",
        "condemned = [r for r in found if self.seen_twice(r)]",
        "condemned = found",
        f"{RULES}::test_an_orphan_dies_at_its_second_complete_sighting",
    ),
    Bug(
        "two sightings in one moment",
        "core/lifecycle.py",
        "        and second.begun - first.begun >= limits.sighting_gap\n",
        "",
        RULES + " tests/unit/core/test_lifecycle.py",
    ),
    Bug(
        "a delete that finds nothing means dead",
        "engine/terminator.py",
        "        again = row.deletes > 0 or outcome.fate is Fate.FAILED\n",
        "        if outcome.fate is Fate.MISSING and row.death:\n"
        "            context.ledger.instances.close(\n"
        "                row.id, epoch=row.epoch, death=row.death, now=context.now(row))\n"
        "        again = row.deletes > 0 or outcome.fate is Fate.FAILED\n",
        f"{LIVES}::test_a_cancelled_newborn_that_nobody_sees_yet_is_waited_for",
    ),
    Bug(
        "close on an accepted delete",
        "engine/terminator.py",
        "        again = row.deletes > 0 or outcome.fate is Fate.FAILED\n",
        "        if outcome.fate is Fate.ACCEPTED and row.death:\n"
        "            context.ledger.instances.close(\n"
        "                row.id, epoch=row.epoch, death=row.death, now=context.now(row))\n"
        "        again = row.deletes > 0 or outcome.fate is Fate.FAILED\n",
        f"{LIVES}::test_a_stubborn_machine_is_forced",
    ),
    Bug(
        "drop the epoch check",
        "ledger/build_writes.py",
        '.where(_b.id == arg("id"), _b.epoch == arg("epoch"), _b.state.in_(before(to)))\n',
        '.where(_b.id == arg("id"), _b.state.in_(before(to)))\n',
        "tests/integration/test_ledger_builds.py",
    ),
    Bug(
        "drop the epoch check of a doom",
        "ledger/build_writes.py",
        '.where(_i.id == arg("id"), _i.epoch == arg("epoch"), _i.state.in_(instance_before(to)))\n',
        '.where(_i.id == arg("id"), _i.state.in_(instance_before(to)))\n',
        "tests/integration/test_ledger_instances.py",
    ),
    Bug(
        "read a failed page as an empty one",
        "core/sweep_view.py",
        "frozenset(self._ended - failed)",
        "frozenset(self._ended | failed)",
        f"{RULES}::test_one_absence_or_a_doubtful_one_closes_nothing",
    ),
    Bug(
        "this host's clock instead of the cloud's (owner)",
        "engine/reconciler.py",
        "        for now, rows in context.timed(snapshot.restless_rows()):\n",
        "        for _, rows in context.timed(snapshot.restless_rows()):\n"
        "            now = context.clock()\n",
        f"{LAYERS} -k owner-fast",
    ),
    Bug(
        "this host's clock instead of the cloud's (reaper)",
        "reaper/reap_pass.py",
        "        now = self._provider.now()\n        plan = reap_rules.decide(",
        "        now = self._context.clock()\n        plan = reap_rules.decide(",
        f"{LAYERS} -k ledger-slow",
    ),
    Bug(
        "kill whatever is ours and tells a deadline",
        "core/reap_rules.py",
        "expires is not None and self.now > expires",
        "expires is not None",
        "tests/unit/core/test_reap_rules_properties.py",
    ),
    Bug(
        "kill ten minutes early",
        "core/row_rules.py",
        "if now > row.end:",
        "if now > row.end - 600:",
        "tests/unit/core/test_reap_rules_properties.py",
    ),
    Bug(
        "ignore the installation",
        "core/sweep_view.py",
        'mine = bool(installation) and resource.tag("installation") == installation',
        "mine = True",
        f"{RULES}::test_what_is_not_ours_by_tag_and_role_lives",
    ),
    Bug(
        "ignore the generation",
        "core/sweep_view.py",
        '        and resource.tag("generation") == generation\n',
        "",
        f"{RULES}::test_an_orphan_lives_while_anything_is_open",
    ),
    Bug(
        "no newborn window",
        "core/lifecycle.py",
        "        and first.begun > created + limits.newborn\n",
        "",
        f"{RULES}::test_one_absence_or_a_doubtful_one_closes_nothing",
    ),
    Bug(
        "no role check",
        "core/sweep_view.py",
        "return mine and resource.role in MORTAL",
        "return mine",
        f"{RULES}::test_what_is_not_ours_by_tag_and_role_lives",
    ),
    Bug(
        "let a tag raise the deadline",
        "core/sweep_view.py",
        "else min(tagged, row.end)",
        "else max(tagged, row.end)",
        f"{RULES}::test_expired_is_past_the_earliest_that_is_known",
    ),
    Bug(
        "no cap on orphans",
        "core/reap_rules.py",
        "elif len(free) > self.limits.orphan_cap:",
        "elif False:",
        f"{RULES}::test_over_the_cap_no_orphan_dies_until_all_are_gone",
    ),
    Bug(
        "a cap that forgets",
        "core/reap_rules.py",
        "held = {s for s in latches if s.subject in map(str, scopes) or self.hole_in(s.subject)}",
        "held = set[Sighting]()",
        f"{RULES}::test_over_the_cap_no_orphan_dies_until_all_are_gone",
    ),
    Bug(
        "children while their parent lives",
        "core/reap_rules.py",
        "        if row.ref in self.sweep_view.alive or resource.parent in self.sweep_view.alive:\n"
        "            return False\n",
        "",
        f"{RULES}::test_leftover_children_wait_for_their_parents",
    ),
    Bug(
        "children before parents",
        "core/reap_rules.py",
        "return (kill.ref.kind is not Kind.INSTANCE, URGENCY",
        "return (kill.ref.kind is Kind.INSTANCE, URGENCY",
        "tests/unit/core/test_reap_rules_properties.py::test_parents_come_before_children",
    ),
    Bug(
        "a copied id keeps a row open",
        "core/sweep_view.py",
        "        if not ours(resource, self.installation):\n"
        "            return False\n        if ref.kind",
        "        if not ours(resource, self.installation):\n"
        '            self.shown.add(resource.instance or "")\n'
        "            return False\n        if ref.kind",
        f"{RULES}::test_anothers_vm_with_a_copied_id_keeps_no_row_open",
    ),
    Bug(
        "a pause of everybody counts as silence",
        "core/row_rules.py",
        "began = max(row.state_since, since, seen.get(row.scope, since))",
        "began = row.state_since",
        f"{RULES}::test_stuck_counts_from_when_somebody_watched",
    ),
    Bug(
        "no kill past E while the ledger is down",
        "reaper/gather.py",
        '        log.error("reaping without the ledger: %s", error, exc_info=_unexpected(error))\n',
        "        raise error\n",
        f"{LAYERS} -k sweep-down",
    ),
    Bug(
        "forget between two sweeps what will expire",
        "reaper/pending_kills.py",
        "        return tuple(k for k in self._kills if k.expires_at is not None "
        "and now > k.expires_at)",
        "        return ()",
        f"{GRACE}::test_a_reaper_without_the_ledgers_memory_keeps_to_g",
    ),
    Bug(
        "forget what a failed sweep could not show",
        "reaper/pending_kills.py",
        "kept = [k for k in self._kills if sweep_view.unread(k.ref.scope, k.ref.kind)]",
        "kept = list[Deletion]()",
        "tests/unit/reaper/test_pending_kills.py",
    ),
    Bug(
        "back off past E as inside it",
        "engine/terminator.py",
        "min(max(remaining, DELETE_RETRY), LONGEST_WAIT)",
        "LONGEST_WAIT",
        f"{LAYERS} -k owner-outage",
    ),
    Bug(
        "count attempts past E before a force",
        "reaper/kills.py",
        "        done |= _ask(provider, refused)\n",
        "        break\n",
        f"{GRACE}::test_a_protected_vm_past_its_deadline_is_forced_within_g",
    ),
    Bug(
        "send again after half the newborn window",
        "engine/launcher.py",
        "if provider.now() >= row.created_at + context.limits.limits.newborn / 2:",
        "if provider.now() >= row.created_at + context.limits.limits.newborn * 2:",
        f"{LIVES}::test_no_create_is_sent_after_half_the_newborn_window",
    ),
    Bug(
        "take an uncertain create for a refused one",
        "engine/launcher.py",
        "            pending.doubtful = True\n            self._again(pending)\n",
        "            self._close(pending, text)\n",
        f"{LIVES}::test_an_uncertain_create_makes_one_machine",
    ),
    Bug(
        "create without a look at the row",
        "engine/launcher.py",
        "        if row.epoch != instance.epoch or row.state is not InstanceState.REQUESTED:\n"
        '            raise Fenced(f"{instance.id} is {row.state} at epoch {row.epoch}")\n',
        "",
        f"{LIVES}::test_the_row_is_looked_at_once_more_before_the_create",
    ),
    Bug(
        "go on with a build whose process is gone",
        "core/lifecycle.py",
        "    if submitter is False:\n        return Death.ABANDONED\n",
        "",
        f"{LIVES}::test_a_build_dies_with_its_submitter",
    ),
    Bug(
        "take over from a living owner",
        "engine/membership.py",
        "        return self._beats.silent(found.id) if lives is None else not lives\n",
        "        return True\n",
        "tests/unit/engine/test_membership.py",
    ),
    Bug(
        "an audit that is never alarmed",
        "core/audit_rules.py",
        "if late is not None and late > grace:",
        "if late is not None and late > 1e9:",
        "tests/unit/core/test_audit_rules.py",
    ),
    Bug(
        "a sweep that read nothing forgets what is due",
        "reaper/reap_pass.py",
        "in within(self._provider, pending.due(now)) if",
        "in list[Deletion]() if",
        f"{GRACE}::test_a_vm_seen_once_dies_though_later_sweeps_read_nothing",
    ),
    Bug(
        "ask only for the death of what a look showed",
        "reaper/reap_pass.py",
        "{row.id: row.ref for row in rows if row.ref is not None}\n",
        "{}\n",
        "tests/faults/test_poison.py::test_a_cloud_without_read_rights_saves_no_expired_vm",
    ),
    Bug(
        "arm VMs behind all births that wait",
        "engine/deadlines.py",
        "context.change_threads(row.provider)",
        "context.create_threads(row.provider)",
        "tests/unit/engine/test_deadlines.py::test_an_arming_waits_behind_no_births",
    ),
    Bug(
        "arm once, whatever came of it",
        "engine/deadlines.py",
        "                wait = backoff(FIRST_WAIT, attempt.tries - 1, LONGEST_WAIT)\n",
        "                wait = 1e9\n",
        f"{ARMING}::test_refused_arming_is_told_once_retried_and_ends_no_build",
    ),
    Bug(
        "disarm a VM that is dying",
        "engine/deadlines.py",
        "        for name in self._armed.keys() - open_ids if",
        "        dying = {row.id for row in mine if row.state not in _LIVING}\n"
        "        open_ids = self._armed.keys() if open_ids is None else open_ids\n"
        "        for name in self._armed.keys() - (open_ids - dying) if",
        f"{ARMING}::test_a_vm_is_armed_once_and_disarmed_when_dead",
    ),
    Bug(
        "a schedule ends with its VM's deadline",
        "core/sweep_view.py",
        "return tagged if resource.ref.kind is Kind.SCHEDULE else",
        "return",
        f"{ARMING}::test_a_sweep_never_deletes_the_schedule_of_a_living_vm",
    ),
    Bug(
        "steps before the metadata is off",
        "engine/reporter.py",
        "                if self._context.monotonic() >= until:\n                    raise\n",
        "                return None\n",
        f"{ARMING}::test_no_step_runs_before_the_metadata_is_off",
    ),
    Bug(
        "read who is there before the rows",
        "engine/snapshot.py",
        "        found = self._reader.read(context.monotonic())\n"
        "        self._membership.update(context.ledger.engines.list(), context.monotonic())\n",
        "        self._membership.update(context.ledger.engines.list(), context.monotonic())\n"
        "        found = self._reader.read(context.monotonic())\n",
        "tests/unit/engine/test_reconciler.py",
    ),
    Bug(
        "a batch counts only the VMs of before",
        "ledger/instances.py",
        "                taken[name] += 1\n",
        "",
        "tests/integration/test_ledger_instances.py",
    ),
    Bug(
        "stuck in a place that nobody saw",
        "reaper/reap_pass.py",
        "seen=memory.reachability.since(scopes, self._context.monotonic(), now),",
        "seen={},",
        "tests/unit/reaper/test_silence.py",
    ),
    Bug(
        "a lease that waits for all other writers",
        "ledger/engines.py",
        "return self._database.write(work, patience=REAPER_WAIT)",
        "return self._database.write(work)",
        "tests/integration/test_daemon.py::test_a_ledger_that_others_write_to_delays_no_kill",
    ),
    Bug(
        "launch a retry past its end",
        "engine/engine.py",
        "if not self._completion.end_late(build):",
        "if True:",
        f"{LIVES}::test_no_vm_is_asked_for_when_no_time_is_left",
    ),
    Bug(
        "orders of the generation of the start",
        "engine/orders.py",
        "self._ledger = ledger",
        'self._ledger = __import__("copy").copy(ledger)',
        "tests/unit/engine/test_orders.py",
    ),
    Bug(
        "eight lost passes are the last",
        "engine/engine.py",
        'self._pool(f"reap-{name}", None)',
        'self._pool(f"reap-{name}", 8)',
        "tests/unit/reaper/test_concurrent_passes.py",
    ),
)
