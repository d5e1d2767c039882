from __future__ import annotations

import json
import logging
import sys

from vmrunner.cli.output import JsonFormatter

BUILD, VM = "b-01m8ew81exmxy310ckadg0k50z", "vm-01m8ew81f3hpvs4ft8068ffhea"


def record(text: str, *args: object, trouble: bool = False) -> dict[str, str]:
    info = None
    if trouble:
        try:
            int("no such thing")
        except ValueError:
            info = sys.exc_info()
    made = logging.LogRecord("vmrunner", logging.WARNING, "x.py", 1, text, args, info)
    made.created = 1795804007.25
    line = JsonFormatter().format(made)
    assert "\n" not in line
    found: dict[str, str] = json.loads(line)
    return found


def test_a_record_is_one_line_with_its_ids() -> None:
    assert record("%s: its VM %s is gone", BUILD, VM) == {
        "time": "2026-11-27T18:26:47.250Z",
        "level": "warning",
        "logger": "vmrunner",
        "message": f"{BUILD}: its VM {VM} is gone",
        "build": BUILD,
        "instance": VM,
    }


def test_fields_of_a_record_come_before_what_its_text_names() -> None:
    made = logging.makeLogRecord(
        {"msg": f"{BUILD} of {VM}", "fields": {"build": "b-1", "machine": "small"}}
    )
    line = json.loads(JsonFormatter().format(made))
    assert (line["build"], line["instance"], line["machine"]) == ("b-1", VM, "small")


def test_what_a_guest_wrote_breaks_no_line() -> None:
    found = record("said %s", 'a"\n{"level": "x"}\x1b[31m', trouble=True)
    assert found["message"].endswith("\x1b[31m")
    assert "no such thing" in found["exception"]
    assert "build" not in found
