"""Bugs of logins of people, and of the page's lists."""

from __future__ import annotations

from bench.planted import Bug

LOGIN = "tests/integration/test_page_login.py"
BUGS = (
    Bug(
        "a login counts that another browser began",
        "server/oidc_login.py",
        "if attempt.issuer != issuer.name or not is_ours:",
        "if attempt.issuer != issuer.name:",
        f"{LOGIN}::test_a_wrong_state_is_refused",
    ),
    Bug(
        "an issuer passes for another",
        "server/oidc_login.py",
        "if attempt.issuer != issuer.name or not is_ours:",
        "if not is_ours:",
        f"{LOGIN}::test_one_provider_does_not_pass_for_another",
    ),
    Bug(
        "an identity of another login counts",
        "server/oidc_login.py",
        "if not hmac.compare_digest(nonce.encode(), attempt.nonce.encode()):",
        "if not nonce:",
        f"{LOGIN}::test_a_forged_identity_is_refused",
    ),
    Bug(
        "an identity for another client counts",
        "server/oidc_login.py",
        "if party != issuer.client_id:",
        "if party is None:",
        f"{LOGIN}::test_a_forged_identity_is_refused",
    ),
    Bug(
        "a login counts twice",
        "ledger/tokens.py",
        'f"login:{digest(attempt)}"',
        'f"login:{digest(secret)}"',
        f"{LOGIN}::test_an_answer_that_comes_again_is_refused",
    ),
    Bug(
        "an address that nobody verified is anybody's",
        "server/oidc_login.py",
        'is_verified = claims.get("email_verified") is True',
        'is_verified = "email_verified" in claims',
        f"{LOGIN}::test_whom_no_rule_is_for_stays_out",
    ),
    Bug(
        "a rule makes admins without a word",
        "config/oidc.py",
        "if not self.admins and any(",
        "if False and any(",
        f"{LOGIN}::test_a_login_that_would_be_unsafe_is_refused",
    ),
    Bug(
        "an issuer sends codes elsewhere",
        "config/oidc.py",
        'and not (scheme == "https" and host in hosts)',
        'and not scheme.startswith("http")',
        f"{LOGIN}::test_a_provider_is_nowhere_but_at_its_own_host",
    ),
    Bug(
        "the overview shows a tenant the house",
        "server/routes/overview_page.py",
        "house=None if own else",
        "house=",
        "tests/integration/test_page_overview.py::test_the_overview_tells_each_build_where_it_is",
    ),
    Bug(
        "the overview shows a tenant what runs elsewhere",
        "services/overview.py",
        "BuildChoice(own=own, **choice)",
        "BuildChoice(own={}, **choice)",
        "tests/integration/test_page_overview.py::test_the_overview_tells_each_build_where_it_is",
    ),
    Bug(
        "what runs is looked for among all that ended",
        "ledger/build_listing.py",
        "if BuildState.FINISHED not in choice.states:",
        "if False:",
        "tests/integration/test_build_lists.py::test_few_among_many_are_found_by_an_index",
    ),
    Bug(
        "a page is sent again because time went on",
        "server/html.py",
        '_TIME.sub("", text)',
        "text",
        "tests/integration/test_page_polling.py::test_a_page_in_which_time_alone_went_on_stays",
    ),
    Bug(
        "a mistyped filter takes the page away",
        "server/routes/build_page.py",
        "except ConfigError as error:",
        "except KeyError as error:",
        "tests/integration/test_page_builds.py::test_a_mistyped_filter_keeps_the_page",
    ),
    Bug(
        "newer builds come in the wrong order",
        "ledger/build_listing.py",
        "BuildPage(builds[::-1],",
        "BuildPage(builds,",
        "tests/integration/test_page_builds.py::test_one_pages_through_the_list_both_ways",
    ),
    Bug(
        "nobody is asked before a VM is ended",
        "server/static/page.js",
        'dialog.returnValue === "yes"',
        "true",
        "tests/integration/test_page_access.py::test_what_ends_something_can_be_left_by_key",
    ),
)
