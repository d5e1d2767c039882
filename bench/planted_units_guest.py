"""Bugs to plant in a unit's supervisor, and in the pods of tests (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

BESIDE = "guest/beside.py"
TESTS = "tests/integration/test_unit_guest.py"
PODS = "localclouds/vmrunner_localclouds/pods"
POD_TESTS = "localclouds/tests/test_pods.py"

BUGS: Final = (
    Bug(
        "collect what a link out of the work directory leads to",
        "guest/artifact_globs.py",
        "                if _stays(root, name):\n",
        "                if True:\n",
        "tests/integration/test_guest_artifacts.py"
        "::test_collect_follows_no_link_out_of_the_work_directory",
    ),
    Bug(
        "follow links in the box",
        BESIDE,
        "os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_PATH | os.O_CLOEXEC",
        f"{TESTS}::test_what_is_no_fifo_is_not_opened",
    ),
    Bug(
        "open whatever lies in the box",
        BESIDE,
        "if not stat.S_ISFIFO(os.fstat(seen).st_mode):",
        "if False:",
        f"{TESTS}::test_what_is_no_fifo_is_not_opened",
    ),
    Bug(
        "follow links between the box's directories",
        BESIDE,
        "flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        f"{TESTS}::test_no_directory_of_the_box_leads_elsewhere",
    ),
    Bug(
        "take the code of a step for that of a container that died",
        BESIDE,
        'if last is None or not (last["exit_code"] or last["step"] + 1 == len(job["steps"])):',
        "if last is None:",
        f"{TESTS}::test_a_driver_that_dies_without_a_word_is_gone",
    ),
    Bug(
        "send a wish for all to none",
        "guest/beside.sh",
        'kill -"$signal" -1',
        'kill -"$signal" 1',
        f"{TESTS}::test_a_cancelled_build_is_told_then_killed",
    ),
    Bug(
        "look for all files in the work directory",
        BESIDE,
        'return None if path == work or path.startswith(f"{work}/") else operate',
        "return None",
        f"{TESTS}::test_files_elsewhere_are_the_business_of_the_images_programs",
    ),
    Bug(
        "go on after a unit's end",
        "guest/unit.py",
        "if identity.overdue(self._place):",
        "if False:",
        f"{TESTS}::test_at_its_end_a_unit_kills_and_leaves",
    ),
    Bug(
        "wait for ever for a driver that died before it began",
        "guest/unit.py",
        "            self._due_at = math.inf\n",
        "            self._due_at = math.inf\n            return\n",
        f"{TESTS}::test_a_driver_that_died_before_it_began_is_gone",
    ),
    Bug(
        "tell nobody of a container's memory",
        f"{PODS}/memory.py",
        "            return self._killed\n",
        "            return False\n",
        f"{POD_TESTS}::test_who_uses_up_its_memory_is_told_so",
    ),
    Bug(
        "raise a pod's deadline",
        f"{PODS}/pod.py",
        "self._limit = seconds if self._limit is None else min(self._limit, seconds)",
        "self._limit = seconds",
        f"{POD_TESTS}::test_a_deadline_ends_the_pod_and_is_only_lowered",
    ),
    Bug(
        "pack a unit's artifacts outside of its root",
        BESIDE,
        "        self.commands = unit_tars.COMMANDS\n",
        "",
        f"{TESTS}::test_no_artifact_is_read_outside_the_work_directory",
    ),
    Bug(
        "keep who owned a unit's source elsewhere",
        "guest/unit_tars.py",
        "return member.replace(uid=0, gid=0, ",
        "return member.replace(",
        f"{TESTS}::test_source_becomes_the_work_directory_of_a_unit",
    ),
    Bug(
        "wait for a container that never started",
        "providers/kubernetes/states.py",
        "    if unstarted is not None:\n        return unstarted\n",
        "",
        "tests/unit/providers/kubernetes/test_states.py::"
        "test_a_build_that_cannot_be_started_is_told_at_once",
    ),
    Bug(
        "fill a box that is a link",
        "guest/unit_lay.py",
        "os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        f"{TESTS}::test_a_box_that_is_a_link_is_not_filled",
    ),
    Bug(
        "let SSH into a unit whose supervisor is not there yet",
        "guest/unit_sshd.sh",
        "until [ -S /run/vmrunner/socket ]; do",
        "until true; do",
        f"{TESTS}::test_ssh_waits_for_the_supervisor_of_a_unit",
    ),
)
