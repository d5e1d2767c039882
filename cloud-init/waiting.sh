#!/bin/sh
# Stands in for the supervisor while the VM installs what it needs.
state=/run/vmrunner-bootstrap
until [ -e "$state/ready" ]; do
    if [ -e "$state/failed" ]; then
        cat "$state/failed" >&2
        exit 1
    fi
    sleep 0.2
done
exec /usr/lib/vmrunner/launcher "$@"
