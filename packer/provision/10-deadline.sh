#!/bin/sh
# The builder's own deadline, before anything else is done in it: it powers itself off, and is then
# forced. Packer may be gone by then; on EC2 a builder that is off is terminated.
set -eu
seconds=${VMRUNNER_MAX_RUN_SECONDS:?}

if [ ! -d /run/systemd/system ]; then
    echo "deadline: no systemd runs here, there is nothing to power off"
    exit 0
fi
arm() { # NAME SECONDS COMMAND…
    name=vmrunner-builder-$1 after=$2
    shift 2
    systemctl is-active --quiet "$name.timer" ||
        systemd-run --quiet --unit "$name" --on-active="$after" --timer-property=AccuracySec=1s "$@"
}
arm deadline "$seconds" systemctl poweroff
arm force "$((seconds + 120))" systemctl poweroff --force --force
