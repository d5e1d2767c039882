"""Bugs to plant in lists of builds, plain errors, support dumps and notices (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

LISTS = "tests/integration/test_build_lists.py"
DUMP = "tests/integration/test_support_dump.py"
PEOPLE = "tests/integration/test_people_notices.py"
STANDARD = "tests/integration/test_standard_webhooks.py"

BUGS: Final = (
    Bug(
        "lists: what finished counts by its submission",
        "ledger/build_listing.py",
        "within(_b.finished_at), within(_b.created_at))]",
        "within(_b.created_at), within(_b.created_at))]",
        f"{LISTS}::test_what_ended_counts_by_its_end",
    ),
    Bug(
        "lists: a prefix is a pattern of LIKE",
        "ledger/build_listing.py",
        "return _b.name.between(start, start + _LAST)",
        'return _b.name.like(f"{start}%")',
        f"{LISTS}::test_each_word_of_a_choice_picks_and_all_hold_together",
    ),
    Bug(
        "lists: a filter forgets whose builds they are",
        "server/routes/builds.py",
        "        own=principal.labels,\n        tenant=",
        "        own={},\n        tenant=",
        f"{LISTS}::test_a_tenant_finds_its_own_alone_by_any_word",
    ),
    Bug(
        "plain errors: hand on what pydantic says",
        "config/fault_words.py",
        'text, fix = _WORDS.get(kind, ("not what is expected here", ""))',
        'text, fix = fault["msg"], ""',
        "tests/integration/test_plain_errors.py",
    ),
    Bug(
        "support dump: secrets that only the configuration names",
        "services/support.py",
        "                yield from _named(value)\n",
        "                yield from ()\n",
        DUMP,
    ),
    Bug(
        "support dump: logs as they are",
        "services/support.py",
        "masked(_end(path))",
        "_end(path)",
        DUMP,
    ),
    Bug(
        "webhooks: sign by the text of whsec_",
        "services/client/webhooks.py",
        "    if not key.startswith(_STANDARD):\n        return key\n",
        "    return key\n",
        STANDARD,
    ),
    Bug(
        "people: follow redirects where the URL says so",
        "services/client/people.py",
        "    service.redirects = False\n",
        "",
        f"{PEOPLE}::test_no_redirect_is_followed_though_the_url_says_so",
    ),
    Bug(
        "people: tell why in the service's own words",
        "services/client/people.py",
        "_without(answer, secret)[:TOLD]",
        "answer[:TOLD]",
        f"{PEOPLE}::test_what_a_failure_says_of_the_url_is_masked",
    ),
)
