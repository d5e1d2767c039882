"""Bugs to plant in the integrations of forges (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

GITHUB, GITLAB = "integrations/github", "integrations/gitlab"
GARM = "integrations/garm"
WORLDS = "tests/faults/test_github.py"
PLAN = "tests/unit/integrations/github/test_plan.py"
UNITS = "tests/unit/integrations/github"
STAGES = "tests/integration/test_gitlab.py"
CALLS = "tests/integration/test_garm.py"
TOOLS = "tests/integration/test_mcp.py"

BUGS: Final = (
    Bug(
        "start a runner for a job whose runner has just ended",
        f"{GITHUB}/plan.py",
        "news.assigned - done - usable",
        "news.assigned - usable",
        PLAN,
    ),
    Bug(
        "count runners that cannot be read as none",
        f"{GITHUB}/plan.py",
        "most - len(seen.live) - seen.unread",
        "most - len(seen.live)",
        PLAN,
    ),
    Bug(
        "start a runner that fails again at once, for ever",
        f"{GITHUB}/plan.py",
        "if now < resume_at(ended=seen.ended, jobless=jobless):",
        "if now < 0:",
        f"{WORLDS}::test_runners_that_fail_at_once_are_started_ever_later",
    ),
    Bug(
        "believe another's clock when a runner ended",
        f"{GITHUB}/scaler.py",
        "ends[row.id] = min(self._ends.get(row.id, end), now)",
        "ends[row.id] = row.finished_at or 0.0",
        f"{WORLDS}::test_an_end_that_is_dated_tomorrow_holds_up_no_job",
    ),
    Bug(
        "give each runner's build a key of its own",
        f"{GITHUB}/runners.py",
        'idempotency_key=f"github:{self._word}:{scale_set}:{number}"',
        'idempotency_key=f"github:{runner.name}"',
        f"{WORLDS}::test_two_at_once_start_one_vm_for_a_job",
    ),
    Bug(
        "acknowledge a job offer before it is taken",
        f"{GITHUB}/listener.py",
        "        self._state.heard(message, self._now())\n",
        "        self._state.heard(message, self._now())\n"
        "        self._service.acknowledge(session, message.id)\n",
        f"{WORLDS}::test_a_crash_at_any_effect_starts_no_second_vm",
    ),
    Bug(
        "end a runner that GitHub does not show",
        f"{GITHUB}/scaler.py",
        "if runner is not None and not self._service.dismiss(runner):",
        "if runner is None:\n"
        "                user = __import__('vmrunner.model', fromlist='x').Reason.USER\n"
        "                self._builds._service.ledger.builds.request_cancel(row.id, user, 0.0)\n"
        "            elif not self._service.dismiss(runner):",
        f"{WORLDS}::test_a_runner_that_github_forgot_is_not_ended",
    ),
    Bug(
        "ask again before a limit is over",
        f"{GITHUB}/listener.py",
        "return max(wait, error.wait or 0.0)",
        "return wait",
        f"{WORLDS}::test_a_limit_is_waited_out",
    ),
    Bug(
        "use the service's token until it is over",
        f"{GITHUB}/identity.py",
        "self.until - EARLY",
        "self.until",
        "tests/unit/integrations/github/test_identity.py",
    ),
    Bug(
        "believe a job's variables which job it is",
        f"{GITLAB}/job.py",
        'if path := environ.get(_ANSWER, ""):',
        'if path := "":',
        f"{STAGES}::test_a_jobs_author_cannot_pass_for_another_job",
    ),
    Bug(
        "make a job another VM when it is prepared again",
        f"{GITLAB}/executor.py",
        '":".join(("gitlab", *self._labels.values()))',
        'f"gitlab:{secrets.token_hex(4)}"',
        f"{STAGES}::test_a_prepare_again_finds_the_same_vm",
    ),
    Bug(
        "take a lost VM for the job's failure",
        "cli/commands/gitlab.py",
        'return _exit_code("SYSTEM_FAILURE_EXIT_CODE", _SYSTEM_FAILED)',
        'return _exit_code("BUILD_FAILURE_EXIT_CODE", _BUILD_FAILED)',
        f"{STAGES}::test_a_vm_that_is_lost_is_the_systems_failure",
    ),
    Bug(
        "let the script of a cancelled job run on beside its after_script",
        "cli/commands/gitlab.py",
        "stage, _write, _attended)",
        "stage, _write)",
        f"{STAGES}::test_a_cancelled_job_leaves_no_vm",
    ),
    Bug(
        "let one GARM see another's instances",
        f"{GARM}/provider.py",
        "such = {CONTROLLER: self._controller, **labels}",
        "such = dict(labels)",
        f"{CALLS}::test_another_garm_sees_and_ends_nothing",
    ),
    Bug(
        "give GARM the ended instance when it tries a name again",
        f"{GARM}/provider.py",
        "pool, number)",
        "pool, 0)",
        f"{CALLS}::test_a_name_may_come_again_when_it_was_deleted",
    ),
    Bug(
        "act upon counts that another hears anew",
        f"{GITHUB}/listener.py",
        "                self._state.unheard()\n",
        "                pass\n",
        f"{WORLDS}::test_counts_are_forgotten_once_another_hears_them",
    ),
    Bug(
        "wait for as long as a limit says, for ever too",
        f"{GITHUB}/http.py",
        "wait and min(wait, LONGEST_LIMIT)",
        "wait",
        "tests/unit/integrations/github/test_http.py::test_a_limit_says_how_long",
    ),
    Bug(
        "run a job's scripts in whatever sandbox has its number",
        f"{GITLAB}/executor.py",
        "            self._labels[PROOF] = job.proof\n",
        "            pass\n",
        f"{STAGES}::test_a_sandbox_of_somebody_else_gets_no_script",
    ),
    Bug(
        "leave a job's variables to the engine that is started",
        f"{GITLAB}/job.py",
        "            del environ[name]\n",
        "            pass\n",
        f"{STAGES}::test_an_engine_that_is_started_keeps_nothing_of_the_job",
    ),
    Bug(
        "let an agent's sandboxes have their engine in a process that agents kill",
        "cli/commands/mcp.py",
        "engine=None",
        'engine="mcp"',
        "tests/integration/test_mcp_stdio.py",
    ),
    Bug(
        "leave the sandbox of a call that was cancelled while it started",
        "api/runner.py",
        "            self._leave()\n            if end",
        "            if end",
        f"{TOOLS}::test_a_call_that_is_cancelled_leaves_no_vm",
    ),
    Bug(
        "wait for a command before the session that it is of may end",
        "integrations/mcp/server.py",
        "limiter=_limiter(), abandon_on_cancel=left_alone",
        "limiter=_limiter()",
        f"{TOOLS}::test_a_session_ends_though_a_command_runs",
    ),
    Bug(
        "have a token anew for each request where a clock is wrong",
        f"{GITHUB}/identity.py",
        "return not fresh and http.now()",
        "return http.now()",
        f"{UNITS}/test_identity.py::test_a_wrong_date_costs_a_token_a_minute",
    ),
    Bug(
        "believe the host's clock when GitHub's tokens end",
        f"{GITHUB}/http.py",
        "self._ahead = date.timestamp() - self.clock()",
        "self._ahead = 0.0",
        f"{UNITS}/test_identity.py::test_a_clock_that_is_wrong_costs_no_token",
    ),
    Bug(
        "show a token to whoever listens on the way",
        f"{GITHUB}/http.py",
        'if target.scheme != "https" and',
        "if False and",
        f"{UNITS}/test_http.py::test_no_token_crosses_the_network_in_the_clear",
    ),
    Bug(
        "tell a token that no header can hold",
        f"{GITHUB}/http.py",
        "if not bearer.isascii() or not bearer.isprintable():",
        "if False:",
        f"{UNITS}/test_http.py::test_a_token_that_no_header_holds_is_not_told",
    ),
    Bug(
        "wait for ever behind a message that cannot be read",
        f"{GITHUB}/listener.py",
        "self._tries < MESSAGE_TRIES:",
        "True:",
        f"{UNITS}/test_listener.py::test_a_message_that_cannot_be_read_keeps_none_behind_it",
    ),
    Bug(
        "ask in a rush where a poll does not wait",
        f"{GITHUB}/serve.py",
        "stop.wait(self._vain.wait(1))",
        "stop.wait(0.1)",
        f"{UNITS}/test_listener.py::test_what_brings_no_news_is_not_asked_in_a_rush",
    ),
    Bug(
        "start runners for counts of long ago",
        f"{GITHUB}/plan.py",
        "return 0 <= age < STALE and (",
        "return (",
        f"{UNITS}/test_state.py::test_a_count_is_sure_when_nothing_followed_it",
    ),
    Bug(
        "take counts that are not told for none",
        f"{GITHUB}/messages.py",
        "    if document is None or document",
        '    document = {"totalAssignedJobs": 0} | (document or {})\n    if document',
        f"{UNITS}/test_messages.py::test_counts_that_are_not_told_are_not_none",
    ),
    Bug(
        "let an answer of GitHub's drip for ever",
        f"{GITHUB}/http.py",
        "                within(WHOLE),\n",
        "",
        f"{UNITS}/test_http.py::test_an_answer_that_drips_is_none",
    ),
    Bug(
        "tell a token of GitHub's that an answer repeats",
        f"{GITHUB}/http.py",
        "message.replace(bearer, _MASK)",
        "message",
        f"{UNITS}/test_http.py::test_a_token_that_an_answer_repeats_is_masked",
    ),
)
