"""Bugs to plant in what a newcomer meets first: sources, documents, messages (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

CONTENTS = "tests/unit/lib/test_contents.py"
ARGUMENTS = "tests/integration/test_mcp_arguments.py"
CONTRADICTIONS = "tests/unit/config/test_contradictions.py"
FIRST_WORDS = "tests/integration/test_first_words.py"
DECODING = "tests/unit/services/remote/test_decoding.py"

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
        "or (top and prefix.strip())",
        "or (top and prefix is None)",
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
        "services/remote/decoding.py",
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
        "for name, said in settings.pools.items()",
        "for name, said in ()",
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
)
