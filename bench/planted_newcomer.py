"""Bugs to plant in what a newcomer meets first: sources, documents, messages (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

CONTENTS = "tests/unit/lib/test_contents.py"
ARGUMENTS = "tests/integration/test_mcp_arguments.py"
CONTRADICTIONS = "tests/unit/config/test_contradictions.py"
FIRST_WORDS = "tests/integration/test_first_words.py"
DECODING = "tests/unit/services/client/test_decoding.py"
GUEST = "tests/integration/test_sandbox_guest.py"
GROUPS = "tests/unit/cli/test_ci_groups.py"
BODIES = "tests/integration/test_http_odd_bodies.py"
SIGNALS = "tests/integration/test_cli_signals.py"
HINTS = "tests/unit/cli/test_waits_with_hints.py"
EXTRACTION = "tests/unit/session/test_extraction.py"

BUGS: Final = (
    Bug(
        "a monitor of the repository's own runs",
        "lib/work_tree.py",
        '    "core.fsmonitor=false",\n',
        "",
        f"{CONTENTS}::test_nothing_that_the_repository_names_runs",
    ),
    Bug(
        "tracked files are left out where they are ignored",
        "lib/work_tree.py",
        '"--cached", ',
        "",
        f"{CONTENTS}::test_what_git_tracks_goes_although_it_is_ignored",
    ),
    Bug(
        "the user's own ignore files are forgotten",
        "lib/work_tree.py",
        "**_ENV}",
        '**_ENV, "HOME": "/nonexistent"}',
        f"{CONTENTS}::test_all_that_a_user_ignores_stays_out",
    ),
    Bug(
        "a damaged repository is none",
        "lib/work_tree.py",
        "complaint := git.complaint(where)):\n        if (marked := _marked(directory)) is None:",
        "complaint := git.complaint(where)):\n        if (marked := None) is None:",
        f"{CONTENTS}::test_a_damaged_repository_is_refused",
    ),
    Bug(
        "without git all goes",
        "lib/work_tree.py",
        'if shutil.which("git") is None:\n        if (marked := _marked(directory)) is None:',
        'if shutil.which("git") is None:\n        if (marked := None) is None:',
        f"{CONTENTS}::test_a_work_tree_without_git_is_refused",
    ),
    Bug(
        "a variable of a hook names the repository",
        "lib/work_tree.py",
        "**git.environment(_KEPT)",
        "**os.environ",
        f"{CONTENTS}::test_no_variable_of_a_hook_leads_to_another_repository",
    ),
    Bug(
        "a forged index leads out",
        "lib/work_tree.py",
        'if not _ODD.isdisjoint(name.lower().split("/")):',
        "if not name:",
        f"{CONTENTS}::test_a_forged_index_leads_nowhere",
    ),
    Bug(
        "submodules come empty",
        "lib/archive/contents.py",
        "if inner not in tree:",
        "if inner in tree:",
        f"{CONTENTS}::test_submodules_and_repositories_within_go_too",
    ),
    Bug(
        "a submodule that is not there is its parent",
        "lib/work_tree.py",
        "if top and prefix.strip():",
        "if top and prefix is None:",
        f"{CONTENTS}::test_submodules_and_repositories_within_go_too",
    ),
    Bug(
        "a link on the way is followed",
        "lib/archive/contents.py",
        "yield relative, (directory / relative).lstat()",
        "yield relative, (directory / relative).stat()",
        f"{CONTENTS}::test_tracked_files_that_are_gone_stay_out",
    ),
    Bug(
        "a step's variables stay at the server",
        "services/client/decoding.py",
        '        env=document.get("env") or {},\n',
        "",
        f"{DECODING}::test_each_field_of_a_spec_comes_back",
    ),
    Bug(
        "an argument that no tool has is ignored",
        "integrations/mcp/arguments.py",
        '"extra": "forbid"',
        '"extra": "ignore"',
        f"{ARGUMENTS}::test_each_argument_is_described_and_bounded",
    ),
    Bug(
        "output in the background grows",
        "integrations/mcp/background.py",
        "                del part[:more]\n",
        "",
        f"{ARGUMENTS}::test_what_nobody_asks_for_is_bounded",
    ),
    Bug(
        "doctor finds no contradiction in pools",
        "config/contradictions.py",
        "for name, pool in settings.pools.items()",
        "for name, pool in ()",
        f"{CONTRADICTIONS}::test_all_contradictions_are_told",
    ),
    Bug(
        "a right is given by a word",
        "config/settings.py",
        "    privileged: Flag = Field(",
        "    privileged: bool = Field(",
        f"{CONTRADICTIONS}::test_a_right_is_given_by_true_alone",
    ),
    Bug(
        "a full disk ends doctor",
        "services/doctor.py",
        "    except OSError as error:\n        fix",
        "    except KeyError as error:\n        fix",
        f"{FIRST_WORDS}::test_doctor_goes_on_where_the_disk_is_full",
    ),
    Bug(
        "a container had more CPU time than its VM",
        "model/usage.py",
        "self.vm_cpu_seconds * 1.1 + 1.0",
        "self.vm_cpu_seconds * 1e9",
        f"{DECODING}::test_no_container_had_more_processor_than_its_vm",
    ),
    Bug(
        "what the shell says stands among a command's words",
        "guest/command.py",
        '6>"$box/err" 2>"/dev/null"',
        '6>"$box/err" 2>&6',
        f"{GUEST}::test_no_word_of_ours_is_in_a_commands_streams",
    ),
    Bug(
        "a missing command has no word",
        "guest/command.py",
        "{{ echo sh: {first}: not found >&6; exit 127; }}",
        "exit 127",
        f"{GUEST}::test_no_word_of_ours_is_in_a_commands_streams",
    ),
    Bug(
        "steps begin without a mark",
        "cli/ci_groups.py",
        "self._marks is None and len(build.spec.steps) > 1",
        "self._marks is None and len(build.spec.steps) > 9",
        f"{GROUPS}::test_elsewhere_several_steps_are_told_beside_the_log",
    ),
    Bug(
        "a step that comes again is marked again",
        "cli/ci_groups.py",
        "self._printed.add(named)\n                lines += self._close(time)",
        "lines += self._close(time)",
        f"{GROUPS}::test_what_comes_again_after_a_take_over_is_marked_once",
    ),
    Bug(
        "a team sees ids of tokens",
        "services/people.py",
        'actor_name=names.get(row.actor, "")',
        'actor_name=""',
        f"{FIRST_WORDS}::test_people_are_shown_by_the_names_of_their_tokens",
    ),
    Bug(
        "an identity is its issuer",
        "services/people.py",
        'return actor.rpartition("#")[2]',
        'return actor.partition("#")[0]',
        "tests/unit/services/test_people.py",
    ),
    Bug(
        "null is said",
        "server/build_body.py",
        "if found is not None or name not in model.model_fields",
        "if name",
        f"{BODIES}::test_null_is_what_was_not_said",
    ),
    Bug(
        "null hides a wrong name",
        "server/build_body.py",
        " or name not in model.model_fields",
        "",
        f"{BODIES}::test_null_hides_no_wrong_name_and_no_value",
    ),
    Bug(
        "a memory that no VM starts with passes",
        "config/contradictions.py",
        "isinstance(memory, int) and memory < least",
        "isinstance(memory, int) and memory < 0",
        f"{CONTRADICTIONS}::test_what_serve_or_each_build_refuses",
    ),
    Bug(
        "artifacts come without a word",
        "cli/follow.py",
        "event.kind == EventKind.COLLECTING and isinstance(size, int)",
        "event.kind == EventKind.COLLECTING and size is None",
        f"{SIGNALS}::test_artifacts_on_their_way_are_told_and_timed",
    ),
    Bug(
        "each piece of artifacts is an event",
        "session/collect.py",
        "max(PROGRESS, (now - self._began) / 12)",
        "PROGRESS",
        f"{EXTRACTION}::test_reports_of_what_came_grow_rarer",
    ),
    Bug(
        "commands in the background have no bound",
        "integrations/mcp/sessions.py",
        "if running >= COMMANDS:",
        "if running < 0:",
        f"{ARGUMENTS}::test_commands_in_the_background_are_bounded",
    ),
    Bug(
        "a character in two pieces is two",
        "integrations/mcp/background.py",
        "final=self.ended",
        "final=True",
        f"{ARGUMENTS}::test_a_character_in_two_pieces_is_one",
    ),
    Bug(
        "a kill leaves the terminal on its other screen",
        "cli/commands/builds.py",
        "with interrupted_by_signals(), output.other_screen():",
        "with output.other_screen():",
        f"{SIGNALS}::test_a_watched_list_gives_the_terminal_back_when_killed",
    ),
    Bug(
        "the newest builds are pushed out of the screen",
        "cli/commands/builds.py",
        "most = min(limit, max(1, output.screen_lines() - _BESIDE))",
        "most = limit",
        f"{FIRST_WORDS}::test_a_watched_list_fits_the_screen",
    ),
    Bug(
        "a time without end ends a command",
        "cli/last_times.py",
        " and 0 <= took <= _LONGEST",
        "",
        "tests/unit/cli/test_last_times.py",
    ),
    Bug(
        "a commit that is a repository hides what is ignored",
        "lib/work_tree.py",
        " or Path(os.fsdecode(git_dir[:-1])) in (here, *here.parents)",
        "",
        f"{CONTENTS}::test_a_commit_that_is_a_repository_hides_no_ignores",
    ),
    Bug(
        "a work tree that git takes for none is none",
        "lib/work_tree.py",
        "*here.parents):\n        if (marked := _marked(directory)) is None:",
        "*here.parents):\n        if (marked := None) is None:",
        f"{CONTENTS}::test_a_configuration_that_hides_the_work_tree_is_refused",
    ),
    Bug(
        "a retry has the time of the pull before it",
        "cli/follow.py",
        "self._began.get(build.attempt, ready[0])",
        "max(self._began.values(), default=ready[0])",
        f"{HINTS}::test_a_pull_says_what_it_took_last",
    ),
)
