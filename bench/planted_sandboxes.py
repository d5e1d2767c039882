"""Bugs to plant in sandboxes and their commands (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

GUEST: Final = "tests/integration/test_sandbox_guest.py"
GUEST_FILES: Final = "tests/integration/test_sandbox_guest_files.py"
CLIENT: Final = "tests/integration/test_sandbox_client.py"
TRANSFERS: Final = "tests/integration/test_sandbox_transfers.py"
LIFE: Final = "tests/integration/test_sandbox_life.py"
BOUNDS: Final = "tests/integration/test_http_sandbox_bounds.py"
AIO: Final = "tests/integration/test_aio.py"
HOSTILE: Final = "tests/unit/api/test_hostile_sandbox.py"
TERMINAL: Final = "tests/integration/test_sandbox_terminal.py"
HTTP: Final = "tests/integration/test_http_sandboxes.py"

BUGS: Final = (
    Bug(
        "terminal: a flood that comes with its beginning is a failure",
        "services/sandbox_terminal.py",
        "while end not in output:",
        "while len(output) > SAID or end not in output:",
        "tests/unit/services/test_terminal_start.py",
    ),
    Bug(
        "runner: what is given up before it has an engine gets none",
        "api/runner.py",
        "        if not row.finished:\n            self._host.ensure(row.spec.provider)\n",
        "",
        "tests/integration/test_mcp.py::test_a_call_cancelled_before_any_engine_leaves_no_build",
    ),
    Bug(
        "sandbox: the same command starts again",
        "guest/sandbox_commands.py",
        'if is_new := not os.path.exists(f"{path}/order"):',
        "if is_new := True:",
        f"{GUEST}::test_the_same_id_starts_once",
    ),
    Bug(
        "sandbox: a long command is forgotten when it ends",
        "guest/command_records.py",
        '        over = _oldest(commands, "state")',
        '        over = _oldest(commands, "order")',
        f"{GUEST}::test_old_commands_are_forgotten_and_running_ones_are_not",
    ),
    Bug(
        "sandbox: a connection that was given up is no lost one",
        "session/ssh/client.py",
        "        yield\n    except (OSError, EOFError, paramiko.SSHException)",
        "        yield\n    except (OSError, paramiko.SSHException)",
        f"{CLIENT}::test_a_black_hole_loses_no_byte",
    ),
    Bug(
        "sandbox: a timeout ends the shell alone",
        "guest/command_group.py",
        "            if pid != self._shell:\n",
        "            if pid == self._shell:\n",
        f"{GUEST}::test_a_timeout_ends_all_processes_of_a_command",
    ),
    Bug(
        "sandbox: a timeout may end as a success",
        "guest/command.py",
        "exit_code=self._code or (TIMED_OUT if self._timed_out else 0),",
        "exit_code=self._code,",
        f"{GUEST}::test_a_timeout_is_no_success",
    ),
    Bug(
        "sandbox: a file that is written anew is root's",
        "guest/sandbox_files.py",
        "            os.fchown(fd, former.st_uid, former.st_gid)\n",
        "            pass\n",
        f"{GUEST_FILES}::test_a_file_that_is_written_anew_keeps_owner_and_mode",
    ),
    Bug(
        "sandbox: a directory is not there because a file in it has gone",
        "guest/sandbox_files.py",
        "with suppress(FileNotFoundError):  # it has gone meanwhile",
        "with suppress(IsADirectoryError):",
        f"{GUEST_FILES}::test_what_goes_while_a_directory_is_read_is_left_out",
    ),
    Bug(
        "sandbox: the VM names the file that is written here",
        "api/sandbox_files.py",
        "            kind = self._client.stat_file(source).kind\n",
        "            kind, source = (said := self._client.stat_file(source)).kind, said.path\n",
        f"{HOSTILE}::test_no_name_on_this_host_comes_from_the_vm",
    ),
    Bug(
        "sandbox: a file without end fills memory and disk",
        "api/sandbox_files.py",
        "        if remaining < 0:\n",
        "        if remaining is None:\n",
        f"{HOSTILE}::test_a_file_without_end_fills_neither_memory_nor_disk",
    ),
    Bug(
        "sandbox: threads write to the same place of a stdin",
        "api/sandbox_process.py",
        "            yield\n        finally:\n            self._typing.release()",
        "            self._typing.release()\n            yield\n        finally:\n            pass",
        f"{HOSTILE}::test_what_threads_write_at_once_is_all_taken",
    ),
    Bug(
        "sandbox: other bytes go on where a write was broken off",
        "api/sandbox_process.py",
        "            self._broken_off = content\n",
        "",
        f"{HOSTILE}::test_a_write_that_was_broken_off_loses_no_byte",
    ),
    Bug(
        "sandbox: a forwarded connection waits in a black hole",
        "session/ssh/client.py",
        "bell.wait(min(RELAY_LOOK, silence.check(channel)))",
        "bell.wait(RELAY_LOOK)",
        f"{TRANSFERS}::test_a_forwarded_connection_into_a_black_hole_ends",
    ),
    Bug(
        "sandbox: one that was lost had its time",
        "core/lifecycle.py",
        " and build.was_ready and not message):",
        " and build.was_ready):",
        "tests/unit/core/test_lifecycle.py::test_a_lost_sandbox_did_not_have_its_time",
    ),
    Bug(
        "sandbox: who forwards waits for the port alone",
        "guest/port_forward.py",
        "    service.setblocking(False)\n",
        "    service.settimeout(None)\n",
        f"{TRANSFERS}::test_a_forwarded_port_takes_and_gives_much_at_once",
    ),
    Bug(
        "sandbox: a stream has no cap",
        "guest/command.py",
        'kept = b"" if self.dropped else data[: STREAM - self.size]',
        "kept = data",
        f"{GUEST}::test_a_stream_is_cut_and_says_so",
    ),
    Bug(
        "sandbox: bytes of stdin that were taken come twice",
        "guest/sandbox_commands.py",
        "    skip = have - offset\n",
        "    skip = 0\n",
        f"{GUEST}::test_stdin_comes_in_pieces_and_each_once",
    ),
    Bug(
        "sandbox: output is not masked",
        "services/command_output.py",
        "        self._masker = Masker(self._patterns)",
        "        self._masker = Masker(())",
        f"{CLIENT}::test_secrets_are_masked_in_both_streams",
    ),
    Bug(
        "sandbox: a stream that is refused is pushed on",
        "server/byte_pipes.py",
        "            pipe.leave()\n\n    found = pieces()",
        "            pass\n\n    found = pieces()",
        f"{BOUNDS}::test_a_refused_stream_leaves_no_thread",
    ),
    Bug(
        "sandbox: what has no place yet is sent on from where it was",
        "api/remote_sandbox.py",
        "        self._http.put(self._files, lambda: data, kind=kind, path=path)",
        "        once = iter(data)\n"
        "        self._http.put(self._files, lambda: once, kind=kind, path=path)",
        f"{BOUNDS}::test_a_file_waits_for_its_place_and_is_whole",
    ),
    Bug(
        "sandbox: who stops waiting for one lets it live",
        "aio.py",
        "            gone.set()\n",
        "            pass\n",
        f"{AIO}::test_a_sandbox_that_nobody_waits_for_ends",
    ),
    Bug(
        "sandbox: an offset in the middle of a secret shows its rest",
        "services/command_output.py",
        "        begin = seam(self._seen, self._patterns, self._before, whole=whole)",
        "        begin = self._before if len(self._seen) >= self._before else None",
        f"{TRANSFERS}::test_no_offset_shows_a_part_of_a_secret",
    ),
    Bug(
        "sandbox: what comes once is sent at an epoch that may be stale",
        "services/sandboxes.py",
        "        if moving.comes_once:",
        "        if False:",
        f"{TRANSFERS}::test_what_comes_once_is_not_sent_half",
    ),
    Bug(
        "sandbox: the end of a forwarded connection stays here",
        "session/ssh/client.py",
        "                    local.shutdown(socket.SHUT_RDWR)",
        "                    pass",
        f"{TRANSFERS}::test_who_listens_hears_that_a_forwarded_port_ended",
    ),
    Bug(
        "sandbox: a take-over is not heard of",
        "services/sandboxes.py",
        "                if self.current()[0].epoch == row.epoch and stale > 1:",
        "                if stale:",
        f"{CLIENT}::test_after_a_take_over_the_new_epoch_is_used",
    ),
    Bug(
        "sandbox: its time ends it as a failure",
        "core/lifecycle.py",
        "    if build.was_ready and end.reason in (Reason.USER, Reason.DEADLINE):",
        "    if build.was_ready and end.reason is Reason.USER:",
        f"{LIFE}::test_its_time_ends_it_as_success",
    ),
    Bug(
        "sandbox: one of another tenant is found",
        "server/routes/common.py",
        "    row = visible_build(parts, principal, word)\n",
        "    row = parts.ledger.builds.find(word)\n",
        f"{HTTP}::test_a_tenant_sees_its_own_sandboxes_alone",
    ),
    Bug(
        "terminal: who hangs up lets live what runs there",
        "core/boxes.py",
        "trap hang_up HUP\n",
        "",
        f"{TERMINAL}::test_hanging_up_ends_what_runs_there",
    ),
    Bug(
        "terminal: a flood that nobody reads fills the memory",
        "api/terminal.py",
        "            while len(self._shown) > UNREAD_BYTES and",
        "            while False and",
        f"{TERMINAL}::test_a_flood_is_held_back_and_its_end_is_kept",
    ),
    Bug(
        "sandbox: a Ctrl-C that comes before its command is lost",
        "cli/command_signals.py",
        "            over.wait(SIGNAL_RETRY)\n            continue\n",
        "            return\n",
        "tests/unit/cli/test_command_signals.py::test_what_heeds_no_signal_is_killed",
    ),
    Bug(
        "decoding: what a newer server sends is refused",
        "services/client/decoding.py",
        "for field in fields(kind)} & document.keys()",
        "for field in fields(kind)} | document.keys()",
        "tests/unit/services/client/test_decoding.py",
    ),
)
