"""Bugs to plant in modules that no other list names, and of the kinds that a decision turned round
does not show: a lease that nobody renews, a timer that does not fire, a bound that is gone, one
poison item that ends a loop, what is only forgotten (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

LOGS = "tests/integration/test_ledger_logs.py"
COSTS = "tests/integration/test_costs.py"
SOURCES = "tests/integration/test_store_sources.py"
LOG_OBJECT = "tests/integration/test_store_log_object.py"
STORE_LOGS = "tests/integration/test_store_logs.py"
ENDPOINTS = "tests/integration/test_store_endpoints.py"
GATE = "tests/unit/ledger/test_transaction_gate.py"
WITNESS = "tests/unit/ledger/test_restore_detection.py"
QUEUE = "tests/unit/engine/test_build_queue.py"
REACH = "tests/unit/core/test_reachability.py"
TICKS = "tests/unit/engine/test_ticks.py"
TURNS = "tests/unit/reaper/test_turns.py"
EXPIRED = "tests/unit/reaper/test_expired.py"
ONCE = "tests/unit/reaper/test_once.py"
PROVIDERS = "tests/unit/runtime/test_provider_set.py"
CLIENT = "tests/unit/services/test_remote_host.py"
CLIENTS = "tests/unit/server/test_client_leases.py"
TIMED = "tests/integration/test_daemon_clock.py::test_all_that_recurs_is_called_by_a_timer"
STREAMS = f"{LOGS}::test_a_log_comes_back_whole_and_in_order"

_TIMERS: Final = tuple(
    Bug(
        f"a timer that is not there: {name}",
        "runtime/daemon.py",
        f'            ("{name}", {seconds}, self.{work}),\n',
        "",
        TIMED,
    )
    for name, seconds, work in (
        ("overdue", "CHECK", "_overdue"),
        ("templates", "PREPARE", "_preparations"),
        ("uploads", "UPLOAD", "_uploads"),
        ("webhooks", "NOTIFY", "_tell_webhooks"),
        ("alarms", "WATCH", "_watches"),
        ("cron", "CHECK", "_cron.look"),
    )
)

BUGS: Final = (
    # --- the ledger ---
    Bug(
        "count the lines of a chunk as before it",
        "ledger/logs.py",
        "                line=row[1] - lines, data=data,\n",
        "                line=row[1], data=data,\n",
        f"{LOGS}::test_after_a_line_comes_exactly_what_follows_it",
    ),
    Bug(
        "count a write twice that was not answered",
        "ledger/logs.py",
        "                raise Repeated\n",
        "                return\n",
        f"{LOGS}::test_what_may_stand_already_is_written_once",
    ),
    Bug(
        "go on in the log where another attempt ended",
        "ledger/logs.py",
        '        .where(_c.build == arg("build"), _c.attempt == arg("attempt"))\n',
        '        .where(_c.build == arg("build"), arg("attempt") > 0)\n',
        STREAMS,
    ),
    Bug(
        "give a log's chunks without a bound",
        "ledger/logs.py",
        '        .limit(arg("limit"))\n',
        '        .limit(arg("limit") * 1000)\n',
        STREAMS,
    ),
    Bug(
        "call a build's cost final that is tried again",
        "ledger/build_costs.py",
        'cost_final=case((_b.state == BuildState.FINISHED.value, arg("final")), else_=false()),',
        'cost_final=case((_b.state != "", arg("final")), else_=false()),',
        f"{COSTS}::test_a_build_that_is_tried_again_has_no_final_cost",
    ),
    Bug(
        "count a VM that cannot be read as free",
        "ledger/build_costs.py",
        "unpriced=cost.unpriced + len(found.unread))",
        "unpriced=cost.unpriced)",
        f"{COSTS}::test_a_vm_that_cannot_be_read_has_no_price",
    ),
    Bug(
        "call a cost final beside a VM that cannot be read",
        "ledger/build_costs.py",
        "over=not found.unread)",
        "over=True)",
        f"{COSTS}::test_a_vm_that_cannot_be_read_has_no_price",
    ),
    Bug(
        "fork while a transaction within another has ended",
        "ledger/fork_safety.py",
        "                if not self._inside[me]:\n",
        "                if True:\n",
        GATE,
    ),
    Bug(
        "fork without a wait for transactions",
        "ledger/fork_safety.py",
        "            return self._changed.wait_for(lambda: not self._inside, patience)\n",
        "            return not self._inside\n",
        GATE,
    ),
    Bug(
        "close connections that somebody uses",
        "ledger/fork_safety.py",
        "            if not (self._inside or self._shut or self._refuses):\n",
        "            if not (self._shut or self._refuses):\n",
        GATE,
    ),
    Bug(
        "let a child use its parent's transaction",
        "ledger/fork_safety.py",
        "        if self._refuses:\n            raise LedgerError(\n",
        "        if self._refuses and self._shut:\n            raise LedgerError(\n",
        GATE,
    ),
    Bug(
        "leave the end of a longer witness",
        "ledger/restore_detection.py",
        "                os.ftruncate(descriptor, len(text))\n",
        "",
        WITNESS,
    ),
    Bug(
        "forget at which epoch a pool's VM was claimed",
        "ledger/restore_detection.py",
        "int(epoch) if epoch.isdigit() else 0)",
        "0)",
        WITNESS,
    ),
    Bug(
        "take a deadline that is no number",
        "ledger/row_codec.py",
        "    if not math.isfinite(value):\n",
        "    if value is None:\n",
        "tests/faults/test_poison.py",
    ),
    Bug(
        "one event of old makes a build unreadable",
        "ledger/row_codec.py",
        "            ended=times[n + 1] if n + 1 < len(times) else None,\n",
        "            ended=times[n + 1],\n",
        "tests/integration/test_ledger_builds.py",
    ),
    Bug(
        "show no engine a build that waits with a wish to end",
        "ledger/builds.py",
        "or_(_b.state != BuildState.QUEUED.value, _b.cancel.is_not(None)))",
        "_b.state != BuildState.QUEUED.value)",
        "tests/integration/test_serving.py",
    ),
    # --- the store ---
    Bug(
        "show a stored log whose bytes rotted",
        "store/log_object.py",
        "len(piece) != entry.size or zlib.crc32(piece) != entry.crc",
        "len(piece) != entry.size",
        f"{LOG_OBJECT}::test_a_damaged_log_is_never_shown",
    ),
    Bug(
        "keep the indexes of all logs that were ever read",
        "store/log_object.py",
        "            while self._size > self._most:\n",
        "            while False:\n",
        f"{LOG_OBJECT}::test_as_many_indexes_are_kept_as_have_room",
    ),
    Bug(
        "count an index that is kept anew once more",
        "store/log_object.py",
        "len(entries) - len(self._all.pop(digest, ()))",
        "len(entries)",
        f"{LOG_OBJECT}::test_as_many_indexes_are_kept_as_have_room",
    ),
    Bug(
        "read all of a stored log at once",
        "store/log_object.py",
        "            if wanted and size > _AT_ONCE:\n",
        "            if False:\n",
        f"{LOG_OBJECT}::test_it_is_read_in_parts",
    ),
    Bug(
        "read no more of an index than comes at first",
        "store/trailer.py",
        'b"".join(store.read(name, begin, start - begin)) if begin < start else b""',
        'b""',
        f"{LOG_OBJECT}::test_it_is_read_in_parts",
    ),
    Bug(
        "take what does not say that it is an index",
        "store/trailer.py",
        "    if magic != _MAGIC or begin < 0:\n",
        "    if begin < 0:\n",
        f"{LOG_OBJECT}::test_a_damaged_log_is_never_shown",
    ),
    Bug(
        "believe an index whose hash is another",
        "store/trailer.py",
        "    if hashlib.sha256(packed).digest() != digest:\n",
        "    if len(hashlib.sha256(packed).digest()) != len(digest):\n",
        f"{LOG_OBJECT}::test_a_damaged_log_is_never_shown",
    ),
    Bug(
        "name a source that gc overtook",
        "store/source_transfer.py",
        "            if objects.conclude_source(item.name, self._clock()):\n"
        "                return digest\n",
        "            objects.conclude_source(item.name, self._clock())\n"
        "            return digest\n",
        SOURCES,
    ),
    Bug(
        "store a source in nobody's name",
        "store/source_transfer.py",
        "digest=digest, now=self._clock(), tenant=tenant,",
        "digest=digest, now=self._clock(),",
        f"{SOURCES}::test_a_digest_that_another_tenant_stored_is_unknown",
    ),
    Bug(
        "build again with another tenant's source",
        "store/source_transfer.py",
        "        self.find(digest, tenant=tenant)\n        return digest\n",
        "        return digest\n",
        f"{SOURCES}::test_a_build_again_takes_its_own_tenants_source",
    ),
    Bug(
        "take a source that is gone for none",
        "store/source_transfer.py",
        "        except NotFound as error:\n            raise StoreError(\n",
        "        except NotFound as error:\n"
        "            if error:\n                return None\n"
        "            raise StoreError(\n",
        f"{SOURCES}::test_a_damaged_source_never_comes_to_a_build",
    ),
    Bug(
        "put into a bucket what nobody checked",
        "store/cloud.py",
        "        if digest_of(source) != digest:\n            raise damaged(name)\n",
        "",
        f"{ENDPOINTS}::test_bytes_of_another_hash_are_never_put",
    ),
    Bug(
        "let a bucket's own errors out",
        "store/cloud.py",
        "        except (BaseError, OSError, ValueError) as error:\n",
        "        except ValueError as error:\n",
        f"{ENDPOINTS}::test_refusals_are_told_once_with_url_and_fix",
    ),
    Bug(
        "one log that cannot be uploaded ends all uploads",
        "store/uploader.py",
        "        except (VmrunnerError, OSError) as error:\n"
        '            log.warning("upload of what %s left: %s", build, error)\n',
        "        except VmrunnerError as error:\n"
        '            log.warning("upload of what %s left: %s", build, error)\n',
        f"{STORE_LOGS}::test_what_is_wrong_with_one_log_keeps_no_other",
    ),
    # --- what an engine looks at ---
    Bug(
        "look at the head of a long queue alone",
        "engine/engine.py",
        "        rest = builds.queued_after(self._walked, QUEUE)\n",
        "        rest = builds.queued_after(self._walked, 0)\n",
        QUEUE,
    ),
    Bug(
        "look at the same part of a long queue each time",
        "engine/engine.py",
        '        self._walked = rest[-1].id if rest else ""\n',
        "",
        QUEUE,
    ),
    Bug(
        "walk through a long queue once",
        "engine/engine.py",
        '        self._walked = rest[-1].id if rest else ""\n',
        "        self._walked = rest[-1].id if rest else self._walked\n",
        QUEUE,
    ),
    Bug(
        "let others' builds hide ours in a long queue",
        "engine/engine.py",
        "            queued += builds.queued(QUEUE, provider=name)\n",
        "            queued += builds.queued(0, provider=name)\n",
        QUEUE,
    ),
    Bug(
        "read the queue again though nothing changed",
        "engine/engine.py",
        "        if changed:\n",
        "        if changed or len(self._first) < QUEUE:\n",
        QUEUE,
    ),
    Bug(
        "count as reached what was dark meanwhile",
        "core/reachability.py",
        "        if scope not in self._last or now - self._last[scope] > self._gap:\n",
        "        if scope not in self._since:\n",
        REACH,
    ),
    Bug(
        "count a place as reached since its last answer",
        "core/reachability.py",
        "        if scope not in self._last or now - self._last[scope] > self._gap:\n",
        "        if True:\n",
        REACH,
    ),
    Bug(
        "reach a place that does not answer",
        "core/reachability.py",
        "        self._last.pop(scope, None)\n",
        "        self._last.get(scope)\n",
        REACH,
    ),
    Bug(
        "tell by the watcher's own clock since when it reaches a place",
        "core/reachability.py",
        "            scope: provider_now - (now - self._since[scope])\n",
        "            scope: self._since[scope]\n",
        REACH,
    ),
    # --- leases and beats ---
    Bug(
        "an engine beats once",
        "engine/engine.py",
        "        if self._beaten is not None and now - self._beaten < HEARTBEAT:\n",
        "        if self._beaten is not None:\n",
        f"{TICKS}::test_a_living_engine_is_silent_for_no_lease",
    ),
    Bug(
        "an engine beats at every tick",
        "engine/engine.py",
        "        if self._beaten is not None and now - self._beaten < HEARTBEAT:\n",
        "        if self._beaten is not None and now < self._beaten:\n",
        f"{TICKS}::test_a_living_engine_is_silent_for_no_lease",
    ),
    Bug(
        "an engine that was taken for dead never joins again",
        "engine/engine.py",
        "        if not self._joined or not engines.beat(self.id, at, launches):\n",
        "        engines.beat(self.id, at, launches)\n        if not self._joined:\n",
        f"{TICKS}::test_an_engine_that_others_took_for_dead_joins_again",
    ),
    Bug(
        "keep the rows of dead engines for ever",
        "engine/engine.py",
        "            engines.leave(member)\n",
        "            pass\n",
        f"{TICKS}::test_the_row_of_a_dead_engine_stays_for_a_day",
    ),
    Bug(
        "drop the row of a dead engine at once",
        "engine/engine.py",
        "before=at - FORGET)",
        "before=at)",
        f"{TICKS}::test_the_row_of_a_dead_engine_stays_for_a_day",
    ),
    Bug(
        "a lease that its holder does not renew",
        "engine/leases.py",
        "        return self._engines.acquire(",
        "        if found is not None and found.holder == self._holder:\n"
        "            return True\n"
        "        return self._engines.acquire(",
        f"{TURNS}::test_one_reaps_however_far_clocks_are_apart",
    ),
    Bug(
        "a reaper that ends keeps its leases",
        "reaper/turns.py",
        "            self._taker.release(self._lease(name))\n",
        "            pass\n",
        f"{TURNS}::test_who_has_other_places_reaps_them",
    ),
    Bug(
        "a reaper that a cloud shows nothing keeps the lease for good",
        "reaper/turns.py",
        "                self._taker.release(lease)\n                turn.given_up = True\n",
        "                turn.given_up = True\n",
        f"{TURNS}::test_who_is_shown_nothing_gives_up_the_lease",
    ),
    Bug(
        "ask for a pool's lease once",
        "engine/pools.py",
        "        if context.monotonic() - asked_at >= RENEW:\n",
        "        if name not in self._leases:\n",
        "tests/faults/test_pools.py::test_a_pools_lease_is_renewed_while_its_holder_lives",
    ),
    Bug(
        "a client renews its builds' leases once",
        "services/client/host.py",
        "        while not self._stop.wait(RENEW):\n",
        "        if not self._stop.wait(RENEW):\n",
        CLIENT,
    ),
    Bug(
        "a lease that is not renewed now is given up",
        "services/client/host.py",
        '                    log.warning("the lease of %s is not renewed yet: %s", build, error)\n',
        "                    self._kept.discard(build)\n",
        CLIENT,
    ),
    Bug(
        "a client renews the leases of ended builds for ever",
        "services/client/host.py",
        "                        self._kept.discard(build)  # it has ended\n",
        "                        continue\n",
        CLIENT,
    ),
    Bug(
        "a build that cannot be ended keeps those of all clients that are gone",
        "server/client_leases.py",
        "            except LedgerError:\n                raise\n",
        "            except VmrunnerError:\n                raise\n",
        f"{CLIENTS}::test_a_build_that_cannot_be_ended_keeps_no_other",
    ),
    Bug(
        "remember each build that a client ever watched",
        "server/client_leases.py",
        "        self._leases.keep(leases)\n",
        "",
        f"{CLIENTS}::test_only_builds_that_are_open_are_remembered",
    ),
    Bug(
        "end builds whose clients could reach no ledger",
        "server/client_leases.py",
        "                self._leases.clear()  # clients got no answer either\n",
        "",
        f"{CLIENTS}::test_a_ledger_that_is_away_ends_no_build",
    ),
    # --- what recurs ---
    *_TIMERS,
    Bug(
        "look for prices at the start alone",
        "runtime/daemon.py",
        '        self._timers.every("prices", PRICES, self._prices, at_once=True)\n',
        "",
        TIMED,
    ),
    Bug(
        "no nightly retention",
        "runtime/daemon.py",
        '        self._cron.set("retention", _NIGHTLY, "retention", self._nightly)\n',
        "",
        TIMED,
    ),
    # --- passes on request, and what is opened for them ---
    Bug(
        "a provider that fails spares all after it",
        "reaper/expired.py",
        "        except Exception as error:",
        "        except VmrunnerError as error:",
        f"{EXPIRED}::test_a_provider_that_fails_spares_no_others_vms",
    ),
    Bug(
        "a dry run kills",
        "reaper/expired.py",
        "            wanted = [] if dry_run else kills\n",
        "            wanted = kills\n",
        f"{EXPIRED}::test_only_what_is_past_its_deadline_dies",
    ),
    Bug(
        "end the expired of all providers where one was named",
        "reaper/expired.py",
        "for item in providers.items() if only in (None, item[0])]",
        "for item in providers.items()]",
        f"{EXPIRED}::test_only_what_is_past_its_deadline_dies",
    ),
    Bug(
        "keep the threads of each pass that was asked for",
        "reaper/once.py",
        "            each.close()\n",
        "            pass\n",
        f"{ONCE}::test_its_threads_end_with_it",
    ),
    Bug(
        "a pass over one provider counts as one over all",
        "reaper/once.py",
        "        if provider is None and not report.ongoing:\n",
        "        if not report.ongoing:\n",
        f"{ONCE}::test_only_a_whole_pass_counts_as_one",
    ),
    Bug(
        "one provider that cannot be opened hides all",
        "runtime/provider_set.py",
        "                broken[name] = error\n",
        "                raise error\n",
        f"{PROVIDERS}::test_one_that_cannot_be_opened_hides_no_other",
    ),
    Bug(
        "keep half of settings that cannot be used",
        "runtime/provider_set.py",
        "            self._use(before, old)\n            raise\n",
        "            raise\n",
        f"{PROVIDERS}::test_settings_that_cannot_be_used_change_nothing",
    ),
    Bug(
        "a ledger that takes nothing spares what is born late",
        "reaper/reap_pass.py",
        "            ledger_view.fail(error)\n            self._kill_without_ledger()\n",
        "            ledger_view.fail(error)\n",
        "tests/faults/test_lives.py::test_a_vm_born_past_its_end_needs_no_ledger",
    ),
    Bug(
        "without the ledger only references are known",
        "reaper/reap_pass.py",
        "provider.look(list(ends)) if ends else {}",
        "{}",
        "tests/faults/test_lives.py::test_a_vm_born_past_its_end_needs_no_ledger",
    ),
    Bug(
        "a row is found by tag alone",
        "core/row_index.py",
        'self._by_id.get(resource.instance or "") or self._recorded(resource)',
        'self._by_id.get(resource.instance or "")',
        "tests/unit/core/test_reap_rules_properties.py::test_no_murder_and_no_forgetting",
    ),
    Bug(
        "what has no name is an orphan though a row cannot be read",
        "core/reap_rules.py",
        "        return not self.unread\n",
        "        return True\n",
        "tests/unit/core/test_reap_rules.py::test_beside_an_unread_row_nothing_nameless_is_an_orphan",
    ),
    Bug(
        "a page shows rows by tag alone",
        "reaper/gather.py",
        "    return rows | {row.id: row for row in instances.recorded(refs)} if refs else rows\n",
        "    return rows\n",
        "tests/faults/test_lives.py::test_a_page_knows_the_rows_of_what_lost_its_name",
    ),
    Bug(
        "reaper: a sweep that is made again stands for the pass",
        "reaper/reaper.py",
        "begun = passes(PASS) | passes(SWEEP)",
        "begun = passes(SWEEP) or passes(PASS)",
        "tests/unit/reaper/test_silence.py::test_the_ledgers_condemned_wait_for_no_listing",
    ),
)
