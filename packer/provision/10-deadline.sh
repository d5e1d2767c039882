#!/bin/sh
# The builder's own deadline, before anything else is done in it: it powers itself off, as every VM
# of vmrunner's does. Packer may be gone by then; on EC2 a builder that is off is terminated.
set -eu
seconds=${VMRUNNER_MAX_RUN_SECONDS:?}

if [ ! -d /run/systemd/system ]; then
    echo "deadline: no systemd runs here, there is nothing to power off"
    exit 0
fi
if systemctl is-active --quiet vmrunner-deadline.timer; then
    echo "deadline: armed in the first boot stage, by user-data"
    exit 0
fi
if [ "${VMRUNNER_PLATFORM:-local}" = gce ]; then
    # After the cloud's own: a VM that is off has lost that one, and its disk bills.
    seconds=$((seconds + 300))
fi
sh "${VMRUNNER_WORK:?}/deadline.sh" "$(($(date +%s) + seconds))" "$seconds"
systemctl is-active vmrunner-deadline.timer vmrunner-deadline-forced.timer
