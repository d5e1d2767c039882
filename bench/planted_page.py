"""Bugs to plant in the page of a build: its log's windows, search and outline, the reports of tests
(`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

WINDOWS = "tests/unit/services/test_log_windows.py"
REPORTS = "tests/unit/services/test_junit_reports.py"
LOG = "tests/integration/test_page_log.py"
ACTIONS = "tests/integration/test_page_actions.py"
OVERVIEW = "tests/integration/test_page_overview.py"

BUGS: Final = (
    Bug(
        "read the rest of a long line of a log to its end",
        "services/log_windows.py",
        "        if taken.skips:  ",
        "        if False:  ",
        f"{WINDOWS}::test_the_rest_of_long_lines_is_not_read",
    ),
    Bug(
        "let a window of a log have any size",
        "services/log_windows.py",
        "self._count or self._kept >= KEPT_BYTES or self._read",
        "self._count or self._read",
        f"{WINDOWS}::test_a_window_has_few_bytes",
    ),
    Bug(
        "keep a line that never ends, while it is searched",
        "services/log_search.py",
        "        if len(self._rest) > _LINE:\n",
        "        if len(self._rest) < 0:\n",
        f"{WINDOWS}::test_a_line_without_end_costs_little_memory",
    ),
    Bug(
        "search a log without an end",
        "services/log_search.py",
        "clock() >= until or size >= BYTES or",
        "clock() >= until or",
        f"{WINDOWS}::test_a_search_ends_after_so_many_bytes",
    ),
    Bug(
        "search the colours of a log",
        "services/log_search.py",
        "log_text.plain(data).lower()",
        "data.lower()",
        f"{WINDOWS}::test_a_search_sees_what_is_shown",
    ),
    Bug(
        "believe a VM's offsets of steps",
        "services/log_outline.py",
        "list(accumulate(firsts, max))",
        "firsts",
        f"{WINDOWS}::test_offsets_that_lie_leave_the_order",
    ),
    Bug(
        "let a scroll that runs win over the button to the end",
        "server/static/log.js",
        "    aim?.();\n",
        "",
        f"{LOG}::test_to_the_end_wins_over_a_running_scroll",
    ),
    Bug(
        "do what a button became while its question was asked",
        "server/static/page.js",
        "body: wish.body ?? ",
        "body: button.dataset.body ?? ",
        f"{ACTIONS}::test_a_poll_changes_no_question",
    ),
    Bug(
        "keep the secret against forged requests of a former login",
        "server/templates/build.html",
        'hx-select-oob="#paused:outerMorph"',
        'hx-select-oob="#nowhere"',
        f"{ACTIONS}::test_buttons_work_after_a_login_in_another_tab",
    ),
    Bug(
        "read the DTD of a report of tests",
        "services/junit_reports.py",
        "        parser.StartDoctypeDeclHandler = self._refuse\n",
        "",
        f"{REPORTS}::test_a_hostile_report_is_told_and_not_read",
    ),
    Bug(
        "read every report of tests, however many",
        "services/junit_reports.py",
        "number >= FILES or size > ALL_BYTES or",
        "size > ALL_BYTES or",
        f"{REPORTS}::test_what_is_read_has_an_end",
    ),
    Bug(
        "keep all that a failed test wrote",
        "services/junit_reports.py",
        "(self._text + text)[-_TEXT:]",
        "self._text + text",
        f"{REPORTS}::test_many_failures_are_counted_and_few_are_kept",
    ),
    Bug(
        "draw the rows of a log anew once their step is known",
        "server/static/log.js",
        "part.adopt(rows.filter((row) => part.has(numberOf(row))));",
        "part.adopt([]);",
        f"{LOG}::test_a_selection_survives_steps_that_are_known_late",
    ),
    Bug(
        "lose what is selected where its row moves to another part",
        "server/static/log_part.js",
        "    chosen.setBaseAndExtent(...ends);",
        "    chosen.empty();",
        f"{LOG}::test_a_selection_survives_a_step_that_grew_into_another",
    ),
    Bug(
        "keep figures of the overview when a build has ended",
        "server/routes/overview_page.py",
        "        builds.version,\n",
        "        None,\n",
        f"{OVERVIEW}::test_figures_follow_what_stands_beside_them",
    ),
    Bug(
        "make figures of the overview anew at each change, however long that takes",
        "server/kept_answers.py",
        "min(whole, PAUSES * kept.took)",
        "0.0",
        "tests/unit/server/test_kept_answers.py::test_an_answer_to_another_version_waits_its_pause",
    ),
)
