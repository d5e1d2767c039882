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
import os
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


def read(device):
    """The codes of keys that were pressed since; None: the device is gone."""
    try:
        data = os.read(device, EVENT.size * 64)
    except BlockingIOError:
        return []
    except OSError:
        return None
    events = [EVENT.unpack_from(data, at) for at in range(0, len(data), EVENT.size)]
    if not data:
        return None
    return [code for _, _, kind, code, value in events if (kind, value) == (KEY, PRESSED)]


selector = selectors.DefaultSelector()
for name in sys.argv[1:] or sorted(glob.glob("/dev/input/event*")):
    selector.register(os.open(name, os.O_RDONLY | os.O_NONBLOCK), selectors.EVENT_READ)
while selector.get_map():
    for key, _ in selector.select():
        pressed = read(key.fd)
        if pressed is None:
            selector.unregister(key.fd)
            continue
        wanted = next((code for code in pressed if code in COMMANDS), None)
        if wanted is not None:
            print("button", wanted, flush=True)
            subprocess.run(COMMANDS[wanted], check=False)
            # Pressed once more before it slept, it would sleep again as soon as it is woken.
            while any(read(device.fd) for device in list(selector.get_map().values())):
                pass
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
