"""Bugs to plant in what the drivers know of the vendors' limits, and in what obeys the buttons that
clouds press (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

LIMITS = "tests/integration/test_vendor_limits.py"
OF_EC2 = f"{LIMITS}::test_each_call_of_ec2s_driver_keeps_its_rate"
OF_GCE = f"{LIMITS}::test_each_call_of_googles_driver_keeps_its_rate"
BUTTONS, SCRIPT = "tests/integration/test_buttons.py", "packer/provision/65-buttons.sh"

BUGS: Final = (
    Bug(
        "limits: a key pair goes as fast as a volume",
        "providers/ec2/client.py",
        '"delete_key_pair", "change")',
        '"delete_key_pair", "delete")',
        OF_EC2,
    ),
    Bug(
        "limits: a list of ids counts as pages",
        "providers/ec2/client.py",
        '"named": Quota(Limit(50, 10)),',
        '"named": Quota(Limit(100, 20)),',
        OF_EC2,
    ),
    Bug(
        "limits: launches are counted without their instances",
        "providers/ec2/client.py",
        '"run": Quota(Limit(5, 2), Limit(1000, 2)),',
        '"run": Quota(Limit(5, 2)),',
        OF_EC2,
    ),
    Bug(
        "limits: a burst on top of a whole minute of Google's",
        "providers/gce/client.py",
        '"read": Quota(Limit(375, 18.75)),',
        '"read": Quota(Limit(375, 25)),',
        OF_GCE,
    ),
    Bug(
        "buttons: pressed again while it falls asleep",
        SCRIPT,
        "            while any(read(device.fd) for device in list(selector.get_map().values())):\n"
        "                pass\n",
        "",
        f"{BUTTONS}::test_a_button_pressed_twice_is_obeyed_once",
    ),
    Bug(
        "buttons: every key is one",
        SCRIPT,
        "next((code for code in pressed if code in COMMANDS), None)",
        "next(iter(pressed), None)",
        f"{BUTTONS}::test_a_button_is_obeyed_once",
    ),
    Bug(
        "buttons: a build waits for them",
        SCRIPT,
        "After=ssh.service multi-user.target\n",
        "",
        f"{BUTTONS}::test_it_holds_back_nothing_that_a_build_waits_for",
    ),
)
