#!/bin/sh
# The power and the sleep button, by which clouds stop and suspend a VM: pools park so. The service
# that usually obeys them, systemd-logind, is masked: it costs each login a talk with it. Azure
# presses none.
set -eu
case ${VMRUNNER_PLATFORM:-local} in
ec2 | gce) ;;
*) exit 0 ;;
esac

cat >/usr/local/sbin/vmrunner-buttons <<'PY'
#!/usr/bin/python3
"""Obey the buttons that a cloud presses: power off, or sleep until it wakes the VM.

    vmrunner-buttons [DEVICE …]      default: all of /dev/input/event*
"""

import glob
import selectors
import struct
import subprocess
import sys

EVENT = struct.Struct("llHHi")  # seconds, microseconds, type, code, value
KEY, PRESSED = 1, 1
POWER, SLEEP, SUSPEND = 116, 142, 205  # of linux/input-event-codes.h
COMMANDS = {
    POWER: ("systemctl", "poweroff"),
    SLEEP: ("sh", "-c", "sync && echo mem >/sys/power/state"),
    SUSPEND: ("sh", "-c", "sync && echo mem >/sys/power/state"),
}


def presses(names):
    """Yield the codes of keys as they are pressed, until no device is left."""
    selector = selectors.DefaultSelector()
    for name in names:
        selector.register(open(name, "rb", buffering=0), selectors.EVENT_READ)
    while selector.get_map():
        for key, _ in selector.select():
            data = key.fileobj.read(EVENT.size * 64)
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()
            for at in range(0, len(data) - EVENT.size + 1, EVENT.size):
                _, _, kind, code, value = EVENT.unpack_from(data, at)
                if (kind, value) == (KEY, PRESSED):
                    yield code


for code in presses(sys.argv[1:] or sorted(glob.glob("/dev/input/event*"))):
    if code in COMMANDS:
        print("button", code, flush=True)
        subprocess.run(COMMANDS[code], check=False)
PY
chmod 0755 /usr/local/sbin/vmrunner-buttons

# After all that a build waits for: nobody presses a button sooner.
cat >/etc/systemd/system/vmrunner-buttons.service <<'UNIT'
[Unit]
Description=Obey the power and the sleep button
After=ssh.service multi-user.target
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=exec
ExecStartPre=-modprobe -a evdev button
ExecStart=/usr/local/sbin/vmrunner-buttons
Restart=on-failure
RestartSec=5
Nice=10
MemoryMax=64M

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable vmrunner-buttons.service
