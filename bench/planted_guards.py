"""Bugs to plant in the guards (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

AWS_GUARD, GCP_GUARD = "deploy/aws/guard.py", "deploy/gcp/guard/main.py"
AZURE_GUARD = "deploy/azure/guard/function_app.py"
OF_AWS, OF_GCP = "tests/integration/test_guard.py", "tests/integration/test_gcp_guard.py"
OF_AZURE = "tests/unit/deploy/test_azure_guard.py"

LIFE = "tests/integration/test_guard_life.py"

BUGS: Final = (
    Bug(
        "any guard that is installed counts",
        "providers/ec2/guard/account.py",
        "if found is None or not guard_liveness.lives(health.last_pass(site), self._now()):",
        "if found is None:",
        f"{LIFE}::test_a_function_without_our_code_guards_nothing",
    ),
    Bug(
        "any guard with a job counts",
        "providers/gce/guard.py",
        "if not guard_liveness.lives(_last_pass(account), clock.now()):",
        "if False:",
        f"{LIFE}::test_a_job_whose_function_never_passed_guards_nothing",
    ),
    Bug(
        "a guard of long ago lives",
        "providers/common/guard_liveness.py",
        "-AHEAD <= now - last <= STALE",
        "-AHEAD <= now - last",
        f"{LIFE}::test_a_sign_counts_for_three_periods",
    ),
    Bug(
        "a guard of a time to come lives",
        "providers/common/guard_liveness.py",
        "-AHEAD <= now - last <= STALE",
        "now - last <= STALE",
        f"{LIFE}::test_a_sign_counts_for_three_periods",
    ),
    Bug(
        "AWS guard: a sign whatever it saw",
        AWS_GUARD,
        "    if arn[3] in seen:\n",
        "    if True:\n",
        f"{LIFE}::test_a_pass_that_sees_no_vm_leaves_no_sign",
    ),
    Bug(
        "AWS guard: a dry run leaves a sign",
        AWS_GUARD,
        "if context is not None and not dry_run:",
        "if context is not None:",
        f"{LIFE}::test_a_dry_run_is_no_pass",
    ),
    Bug(
        "AWS guard: a sign though it may end nothing",
        AWS_GUARD,
        "if each.saw and not each.denied",
        "if each.saw",
        f"{LIFE}::test_a_pass_that_may_end_no_vm_leaves_no_sign",
    ),
    Bug(
        "GCP guard: a sign though it may end nothing",
        GCP_GUARD,
        'works = report["saw"] and not report["denied"]',
        'works = report["saw"]',
        f"{LIFE}::test_no_sign_where_no_vm_may_be_ended",
    ),
    Bug(
        "Azure guard: a sign though it may end nothing",
        AZURE_GUARD,
        'works = report["saw"] and not report["denied"]',
        'works = report["saw"]',
        "tests/integration/test_azure_guard_life.py::test_a_pass_that_may_end_no_vm_leaves_no_sign",
    ),
    Bug(
        "GCP guard: a sign whatever it saw",
        GCP_GUARD,
        "if settings.account and works and not dry_run:",
        "if settings.account:",
        f"{LIFE}::test_no_sign_where_vms_could_not_be_listed",
    ),
    Bug(
        "AWS guard: today's limit for what was born under another",
        AWS_GUARD,
        "most = self.settings.max_ttl if most is None else most",
        "most = self.settings.max_ttl",
        f"{OF_AWS}::test_a_lowered_limit_changes_no_promised_deadline",
    ),
    Bug(
        "AWS guard: no role check",
        AWS_GUARD,
        'return owned and tags.get(f"{TAG}role") in ROLES',
        "return owned",
        f"{OF_AWS}::test_of_everything_only_what_is_ours_and_expired_ends",
    ),
    Bug(
        "AWS guard: one failure ends the pass",
        AWS_GUARD,
        "                self._failed(kind, thing, error)\n",
        "                raise\n",
        f"{OF_AWS}::test_a_denied_kind_is_raised_and_holds_no_other_back",
    ),
    Bug(
        "GCP guard: today's limit for what was born under another",
        GCP_GUARD,
        "life = max_ttl if life is None else life",
        "life = max_ttl",
        f"{OF_GCP}::test_without_a_deadline_the_limit_at_birth_counts",
    ),
    Bug(
        "GCP guard: no role check",
        GCP_GUARD,
        'return owned and labels.get(f"{LABEL}role") in ROLES',
        "return owned",
        f"{OF_GCP}::test_of_everything_only_what_is_ours_and_expired_ends",
    ),
    Bug(
        "GCP guard: one failure ends the pass",
        GCP_GUARD,
        '            what = "held" if isinstance(error, Refused) and error.busy else "failures"\n',
        "            raise\n",
        f"{OF_GCP}::test_one_that_may_not_be_ended_saves_no_other",
    ),
    Bug(
        "Azure guard: today's limit for what was born under another",
        AZURE_GUARD,
        "life = max_ttl if life is None else life",
        "life = max_ttl",
        f"{OF_AZURE}::test_without_a_deadline_the_limit_at_birth_counts",
    ),
    Bug(
        "Azure guard: no role check",
        AZURE_GUARD,
        'return owned and tags.get(f"{TAG}role") in ROLES',
        "return owned",
        f"{OF_AZURE}::test_of_everything_only_what_is_ours_and_expired_ends",
    ),
    Bug(
        "Azure guard: one failure ends the pass",
        AZURE_GUARD,
        '            what = "held" if isinstance(error, Refused) and error.busy else "failures"\n',
        "            raise\n",
        f"{OF_AZURE}::test_one_that_may_not_be_ended_saves_no_other",
    ),
    Bug(
        "Azure guard: VMs end when their guest likes",
        AZURE_GUARD,
        'more=(("forceDeletion", "true"),)',
        "more=()",
        f"{OF_AZURE}::test_vms_end_by_force_and_what_is_used_waits",
    ),
    Bug(
        "Azure guard: a pass has no end",
        AZURE_GUARD,
        "            if self._clock() >= self._over:\n",
        "            if False:\n",
        f"{OF_AZURE}::test_a_pass_comes_to_an_end",
    ),
    Bug(
        "Azure guard: its token goes wherever a page leads",
        AZURE_GUARD,
        "if _origin(url) != _origin(self._base):",
        "if False:",
        f"{OF_AZURE}::test_a_next_page_elsewhere_gets_no_token",
    ),
)
