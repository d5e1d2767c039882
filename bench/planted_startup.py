"""Planted bugs of commands that start at once."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

KNOWN: Final = "tests/unit/config/test_known_settings.py"
PLAIN: Final = "tests/unit/config/test_plain_request.py"
FROZEN: Final = "tests/unit/ledger/test_frozen_statements.py"

BUGS: Final[tuple[Bug, ...]] = (
    Bug(
        "know a configuration by less than its values",
        "config/known_settings.py",
        "[_version(), _code(), values]",
        "[_version(), _code(), sorted(values)]",
        f"{KNOWN}::test_a_changed_file_is_validated",
    ),
    Bug(
        "believe a cache that another may have written",
        "config/remembered.py",
        "found.st_mode & 0o077 or above.st_mode & 0o077",
        "found.st_mode & 0o007 or above.st_mode & 0o007",
        f"{KNOWN}::test_what_others_may_have_written_is_not_believed",
    ),
    Bug(
        "leave a frozen statement as it was",
        "ledger/compiled/sqlite.json",
        '"removals._LET_GO": ["UPDATE objects',
        '"removals._LET_GO": ["UPDATE  objects',
        f"{FROZEN}::test_each_frozen_statement_is_what_is_compiled",
    ),
    Bug(
        "take any token for one that was sealed here",
        "ledger/encryption.py",
        "return any(\n                hmac",
        "return True or any(\n                hmac",
        "tests/unit/ledger/test_encryption.py::test_a_token_is_known_by_its_signature",
    ),
    Bug(
        "take any whole number for a plain one of a union",
        "lib/plain_json.py",
        "if len(found) != 1 or (None in members and type(value) is int):",
        "if len(found) != 1:",
        "tests/unit/lib/test_plain_json.py::test_whatever_else_it_is_is_left_to_pydantic",
    ),
    Bug(
        "known settings: a table of a provider is of no class",
        "config/known_settings.py",
        "        return type(self._valid())\n",
        "        return KnownTable\n",
        "tests/integration/test_image_gc_local.py::test_old_local_images_go_and_those_in_use_stay",
    ),
    Bug(
        "plain requests: drop what is wrong among what is right",
        "config/plain_request.py",
        "    except ConfigError:\n        found = {}\n",
        "    except ConfigError:\n        return request({})\n",
        f"{PLAIN}::test_one_wrong_value_among_right_ones_is_not_dropped",
    ),
    Bug(
        "plain requests: take no processor for one",
        "config/plain_request.py",
        "partial(field_checks.whole, least=1)",
        "partial(field_checks.whole, least=0)",
        f"{PLAIN}::test_whatever_else_it_is_has_the_words_of_pydantic",
    ),
    Bug(
        "known settings: keep what decides whose a build is",
        "config/known_settings.py",
        "(name in plain or value == defaults[name])",
        "(name in plain or value)",
        f"{KNOWN}::test_an_option_that_decides_whose_it_is_is_not_kept",
    ),
    Bug(
        "take the default image of other code for ours",
        "images/current_image.py",
        '    yield from resources.GUEST.glob("[!.]*.*")\n',
        "",
        "tests/unit/images/test_current_image.py::test_whatever_changed_in_it_is_another_image",
    ),
    Bug(
        "leave a new ledger without migrations that came later",
        "ledger/upgrade.py",
        "            if behind(version(connection)):\n",
        "            elif behind(version(connection)):\n",
        f"{FROZEN}::test_a_new_ledger_has_migrations_that_came_later",
    ),
    Bug(
        "load the SSH library before a VM is asked for",
        "runtime/app.py",
        "        if kind == SERVE:\n            importlib",
        "        if kind:\n            importlib",
        "tests/integration/test_startup.py::test_a_vm_is_asked_for_before_ssh_is_loaded",
    ),
)
