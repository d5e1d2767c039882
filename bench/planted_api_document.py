"""Bugs to plant in documents, the OpenAPI document and the transfer of answers (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

TRANSFER = "tests/integration/test_http_transfer.py"
DOCUMENT = "tests/integration/test_http_document.py"

BUGS: Final = (
    Bug(
        "say 426 of a build that is not there",
        "server/routes/terminals.py",
        "    await entered(request, build, sandbox=False)\n    raise",
        "    raise",
        "tests/integration/test_http_terminals.py::test_what_is_no_websocket_is_told_so",
    ),
    Bug(
        "take a step with run and argv by the schema",
        "config/jobfile.py",
        '"then": {"properties": {"argv": {"type": "null"}}}',
        '"then": {}',
        f"{DOCUMENT}::test_a_body_that_the_document_forbids_is_refused",
    ),
    Bug(
        "forbid hosts that are taken",
        "config/policy_field.py",
        "[^\\\\u0000-\\\\u007f]",
        "[\\\\u0080-\\\\uffff]",
        "tests/unit/config/test_network_policy.py::test_no_schema_forbids_what_is_taken",
    ),
    Bug(
        "take a cursor of another list",
        "server/routes/builds.py",
        'pattern="^b-"',
        'pattern="^(b|vm)-"',
        "tests/integration/test_http_hostile.py::test_a_parameter_that_cannot_be_names_its_fix",
    ),
    Bug(
        "pack answers for browsers too",
        "server/transfer.py",
        "return takes_gzip(self._headers) and not (caller is not None and caller.cookie)",
        "return takes_gzip(self._headers)",
        f"{TRANSFER}::test_bytes_problems_pages_and_browsers_are_not_packed",
    ),
    Bug(
        "take any name of a request into the log",
        "lib/request_names.py",
        "wanted if _NAME.fullmatch(wanted) else",
        "wanted if wanted else",
        f"{TRANSFER}::test_a_name_that_harms_a_log_is_replaced",
    ),
    Bug(
        "overlook an idempotency key in the head",
        "server/routes/builds.py",
        "    if not keys:\n        return body\n",
        "    if keys:\n        return body\n    keys = ['']\n",
        f"{TRANSFER}::test_an_idempotency_key_may_stand_in_the_head",
    ),
    Bug(
        "take the first of two idempotency keys",
        "server/routes/builds.py",
        "    if set(keys) != {key}:\n",
        "    if key not in keys:\n",
        f"{TRANSFER}::test_two_idempotency_keys_are_refused",
    ),
    Bug(
        "name nobody in answers about a build",
        "server/routes/common.py",
        "    named = people.named(parts.ledger, rows)\n",
        "    named = list(rows)\n",
        "tests/integration/test_http_builds.py::test_each_answer_names_the_submitter",
    ),
    Bug(
        "overlook words of a document in any request",
        "server/shown_bodies.py",
        "    if found.keys() >= _SIGNS:\n",
        "    if found:\n",
        f"{TRANSFER}::test_words_of_a_document_are_not_overlooked_in_a_request",
    ),
    Bug(
        "tell the methods of the first route alone",
        "server/problems.py",
        '            headers["Allow"] = ", ".join(_methods(request))\n',
        "            pass\n",
        f"{TRANSFER}::test_another_method_is_told_all_that_there_are",
    ),
    Bug(
        "write a field that no schema has",
        "services/documents.py",
        '        "deletes": row.deletes,\n',
        '        "deletes": row.deletes, "shape": None,\n',
        "tests/integration/test_documents.py::test_documents_of_commands_are_as_their_schemas",
    ),
)
