#!/bin/sh
# vmrunner-deadline E TTL: the guest's own end, armed in the first boot stage.
# Powers off at E (epoch seconds) or TTL seconds from now, whichever comes first, and 120 s later
# without asking anybody. DefaultDependencies=no: else the timers wait for the boot, and the boot
# for cloud-init, which waits for us; and the forced one would be stopped by the first.
set -eu
end=$1 ttl=$2 force=120

arm() {
    name=$1 at=$2 after=$3
    shift 3
    systemd-run --quiet --unit="$name" \
        --on-calendar="$(date -u -d "@$at" '+%Y-%m-%d %H:%M:%S UTC')" --on-active="$after" \
        --timer-property=AccuracySec=1s --timer-property=DefaultDependencies=no \
        -p DefaultDependencies=no "$@"
}

# A deadline that has passed already would never come: systemd skips dates in the past.
if [ "$(date +%s)" -ge "$end" ]; then
    systemctl --force --force poweroff
fi
arm vmrunner-deadline "$end" "$ttl" systemctl --no-block poweroff
arm vmrunner-deadline-forced $((end + force)) $((ttl + force)) systemctl --force --force poweroff
